// How much memory contexts need, and how many fit into an amount of it: the model's own figures (model_probe.hpp) and
// the plugin's arithmetic put together. Prints nothing.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <utility>

#include "engine.hpp"
#include "model_probe.hpp"

namespace kvarn::program {

// Whose cache: the host's own f16 one, or ours as the settings say.
struct PlannedCache {
  bool is_host = false;
  CacheSettings settings;
};

// Contexts of one length, full.
struct Contexts {
  std::uint64_t count = 1;
  std::uint64_t tokens = 0;  // of each
};

class MemoryPlan {
 public:
  static constexpr std::uint64_t kMaxContexts = 256;                   // llama.cpp's limit on sequences of a context
  static constexpr std::uint64_t kMaxTokens = std::uint64_t{1} << 26;  // of one context, beyond any model

  // Both must outlive the plan.
  MemoryPlan(const Engine& engine, const ModelProbe& model, std::uint32_t micro_batch_tokens, bool unified);

  // Caches of full contexts, each generating.
  std::uint64_t cache_bytes(const PlannedCache& cache, const Contexts& contexts);
  // What the rows of one micro-batch of a prompt take beyond that while they are exact.
  std::uint64_t prompt_bytes(const PlannedCache& cache, const Contexts& contexts);
  // Weights, compute buffers, and what a program takes besides.
  std::uint64_t other_bytes(const Contexts& contexts);
  std::uint64_t needed_bytes(const PlannedCache& cache, const Contexts& contexts);
  // Within memory, and within the cap that the plugin's settings put on our caches.
  bool fits(const PlannedCache& cache, const Contexts& contexts, std::uint64_t memory_bytes);
  // f16 rows of the tokens in use, sliding windows cut short.
  std::uint64_t f16_bytes(const Contexts& contexts);
  // What one more token takes in a long context.
  double bytes_per_token(const PlannedCache& cache);

  // The most contexts of this length that fit, 0 to kMaxContexts.
  std::uint64_t contexts_that_fit(const PlannedCache& cache, std::uint64_t tokens, std::uint64_t memory_bytes);
  // The longest context that fits, in steps of 256 tokens, 0 to kMaxTokens.
  std::uint64_t tokens_that_fit(const PlannedCache& cache, std::uint64_t contexts, std::uint64_t memory_bytes);

 private:
  static std::uint64_t near_tokens(std::uint64_t tokens);
  const ProbedContext& probed(const Contexts& contexts);
  ggml_kvarn_account planned(const CacheSettings& settings, const Contexts& contexts, std::uint64_t batch_tokens);

  const Engine* engine_;
  const ModelProbe* model_;
  std::uint32_t micro_batch_tokens_;
  bool unified_;
  std::map<std::pair<std::uint64_t, std::uint64_t>, ProbedContext> probes_;
};

}  // namespace kvarn::program
