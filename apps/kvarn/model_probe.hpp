// What a model would need, asked of llama.cpp itself without loading a weight: layers as it lays out their caches,
// sizes of weights and of compute buffers. Knows nothing of presets or of how much memory there is.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine.hpp"
#include "llama.h"

namespace kvarn::program {

// Contexts of one length, each in a stream of its own or all in one.
struct ContextLayout {
  std::uint32_t sequences = 1;
  std::uint32_t tokens = 0;  // of each
  bool unified = false;
  std::uint32_t micro_batch_tokens = 512;
};

struct ProbedContext {
  std::vector<ggml_kvarn_layer> layers;  // sliding windows are marked
  std::uint64_t compute_bytes = 0;       // of all devices, at the longest
  std::uint64_t host_cache_bytes = 0;    // what the host's own f16 cache takes as soon as it is made
};

class ModelProbe {
 public:
  // Reads the metadata. Throws UserError: no such file, not a GGUF file, not a model that generates text. Needs the
  // plugin.
  ModelProbe(const std::string& file, const Engine& engine);

  // Throws UserError if llama.cpp cannot plan such a context.
  ProbedContext probe(const ContextLayout& layout) const;

  std::uint64_t weight_bytes() const;  // as the file has them
  std::uint32_t trained_context_tokens() const;
  std::string description() const;

 private:
  struct ModelDeleter {
    void operator()(llama_model* model) const { llama_model_free(model); }
  };
  ProbedContext probe_unmarked(const ContextLayout& layout) const;

  const Engine* engine_;
  std::string file_;
  std::unique_ptr<llama_model, ModelDeleter> model_;
  std::vector<std::uint32_t> window_layers_;  // sorted
};

}  // namespace kvarn::program
