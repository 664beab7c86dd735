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

// Sees values of the graph while it is computed.
class GraphObserver {
 public:
  virtual ~GraphObserver() = default;
  virtual bool wants(const ggml_tensor& tensor) = 0;
  // Called with what wants() agreed to, once it is computed.
  virtual void see(const ggml_tensor& tensor) = 0;
};

struct ContextSettings {
  std::uint32_t context_tokens = 0;
  std::uint32_t micro_batch_tokens = 512;
  int threads = 1;
  std::uint32_t sequences = 1;   // they share the context's tokens
  std::uint32_t logit_rows = 0;  // at most so many of a micro-batch; 0: of every token
  // The cache stays in the host's own memory and is read by the host's own flash attention, whatever device is loaded.
  bool host_cache = false;
  ggml_type host_cache_type = GGML_TYPE_F16;
  GraphObserver* observer = nullptr;  // must outlive the context
};

struct ChatMessage {
  std::string role;
  std::string content;
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
  // A conversation up to where the next answer begins; the texts one after the other if the model has no such format.
  std::string apply_chat_template(const std::vector<ChatMessage>& messages) const;

  // A whole text: with the tokens that start it, markers of a chat format taken for what they are.
  std::vector<llama_token> tokenize(const std::string& text) const;
  // A text that follows another one, taken letter by letter.
  std::vector<llama_token> tokenize_part(const std::string& text) const;
  // A text in a chat format that follows another one: markers are taken for what they are.
  std::vector<llama_token> tokenize_turn(const std::string& text) const;
  std::string piece(llama_token token) const;
  bool ends_text(llama_token token) const;
  std::int64_t trained_context_tokens() const;
  std::int32_t vocabulary_size() const;
  // Whether a text of this model starts with a token of its own, and which.
  bool starts_text() const;
  llama_token start_token() const;
  // Channels of one attention head, of the keys; the model's width over its heads if the file does not say.
  std::uint32_t head_dimension() const;
  // What one token takes in a full f16 cache; sliding windows and recurrent layers take less.
  std::size_t f16_bytes_per_token() const;
  std::string description() const;
  // Tells models apart whose contexts must not be mixed up, whatever their files are called.
  std::string identity() const;

 private:
  enum class Part { kWhole, kLater, kTurn };
  std::vector<llama_token> tokenize(const std::string& text, Part part) const;

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
