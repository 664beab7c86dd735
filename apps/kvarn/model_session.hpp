// A loaded model with its tokenizer and chat template, and contexts (caches) made from it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "llama.h"

namespace kvarn::program {

struct ContextDeleter {
  void operator()(llama_context* context) const { llama_free(context); }
};
using ContextPointer = std::unique_ptr<llama_context, ContextDeleter>;

struct ContextSettings {
  std::uint32_t context_tokens = 0;
  std::uint32_t micro_batch_tokens = 512;
  int threads = 1;
};

class ModelSession {
 public:
  // Where a model's cache lives: with the devices that are loaded (the plugin's first), or with the CPU's own code
  // only.
  enum class Devices { kAll, kHostOnly };

  // Throws UserError: no such file, not a GGUF file, not a model that generates text, no memory.
  ModelSession(const std::string& file, Devices devices);

  // Throws UserError if the context cannot be made.
  ContextPointer make_context(const ContextSettings& settings) const;

  // One user message in the model's own chat format; the text unchanged if the model has no format that llama.cpp
  // knows.
  std::string apply_chat_template(const std::string& text) const;

  std::vector<llama_token> tokenize(const std::string& text) const;
  std::string piece(llama_token token) const;
  bool ends_text(llama_token token) const;
  std::int64_t trained_context_tokens() const;
  std::string description() const;

 private:
  struct ModelDeleter {
    void operator()(llama_model* model) const { llama_model_free(model); }
  };
  std::unique_ptr<llama_model, ModelDeleter> model_;
  const llama_vocab* vocab_ = nullptr;
  std::string file_;
};

// Throws UserError unless the file is there and starts as a GGUF file does.
void check_model_file(const std::string& file);

}  // namespace kvarn::program
