#include "model_session.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>

#include "engine.hpp"
#include "user_error.hpp"

namespace kvarn::program {
namespace {

bool on_graph_value(ggml_tensor* tensor, bool ask, void* observer) {
  auto& graph = *static_cast<GraphObserver*>(observer);
  if (ask) return graph.wants(*tensor);
  graph.see(*tensor);
  return true;
}

}  // namespace

void check_model_file(const std::string& file) {
  if (!std::filesystem::is_regular_file(file)) {
    throw UserError(fmt::format("no model file '{}'", file), "give -m an existing GGUF file");
  }
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> stream(std::fopen(file.c_str(), "rb"), std::fclose);
  if (!stream) {
    throw UserError(fmt::format("cannot read the model file '{}'", file), "check its permissions");
  }
  char magic[4] = {};
  if (std::fread(magic, 1, sizeof(magic), stream.get()) != sizeof(magic) || std::memcmp(magic, "GGUF", 4) != 0) {
    throw UserError(fmt::format("'{}' is not a GGUF file", file), "convert the model to GGUF, or download it again");
  }
}

ModelSession::ModelSession(const std::string& file, Devices devices) : file_(file) {
  check_model_file(file);
  llama_model_params params = llama_model_default_params();
  ggml_backend_dev_t no_devices[] = {nullptr};
  if (devices == Devices::kHostOnly) {
    params.devices = no_devices;
  }
  Engine::take_error();
  model_.reset(llama_model_load_from_file(file.c_str(), params));
  if (!model_) {
    throw UserError(fmt::format("cannot load '{}': {}", file, Engine::take_error()),
                    "is the file whole, and is there memory?");
  }
  if (!llama_model_has_decoder(model_.get()) || llama_model_has_encoder(model_.get())) {
    throw UserError(fmt::format("'{}' is not a model that continues text", file), "give a decoder-only model");
  }
  vocab_ = llama_model_get_vocab(model_.get());
}

ContextPointer ModelSession::make_context(const ContextSettings& settings) const {
  llama_context_params params = llama_context_default_params();
  params.n_ctx = settings.context_tokens;
  params.n_ubatch = settings.micro_batch_tokens;
  params.swa_full = false;  // sliding windows hold their window, as in llama.cpp's own programs
  params.n_threads = settings.threads;
  params.n_threads_batch = settings.threads;
  params.n_batch = std::max(params.n_batch, settings.micro_batch_tokens);
  params.n_seq_max = settings.sequences;
  params.kv_unified = settings.sequences > 1;
  params.n_outputs_max = settings.logit_rows;
  if (settings.host_cache) {
    params.offload_kqv = false;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    params.type_k = settings.host_cache_type;
    params.type_v = settings.host_cache_type;
  }
  if (settings.observer != nullptr) {
    params.cb_eval = on_graph_value;
    params.cb_eval_user_data = settings.observer;
  }
  Engine::take_error();
  std::optional<Engine::NoticePause> pause;
  if (settings.host_cache) pause.emplace();
  ContextPointer context(llama_init_from_model(model_.get(), params));
  if (!context) {
    throw UserError(
        fmt::format("cannot make a context of {} tokens: {}", settings.context_tokens, Engine::take_error()),
        "try a smaller -c");
  }
  return context;
}

std::string ModelSession::apply_chat_template(const std::string& text) const {
  return apply_chat_template(std::vector<ChatMessage>{{"user", text}});
}

std::string ModelSession::apply_chat_template(const std::vector<ChatMessage>& messages) const {
  std::vector<llama_chat_message> chat;
  std::string plain;
  for (const ChatMessage& message : messages) {
    chat.push_back({message.role.c_str(), message.content.c_str()});
    plain += message.content;
  }
  const char* format = llama_model_chat_template(model_.get(), nullptr);
  if (format == nullptr) {
    return plain;
  }
  std::string result(plain.size() + 1024 * messages.size(), '\0');
  int length = llama_chat_apply_template(format, chat.data(), chat.size(), true, result.data(),
                                         static_cast<int>(result.size()));
  if (length > static_cast<int>(result.size())) {
    result.resize(length);
    length = llama_chat_apply_template(format, chat.data(), chat.size(), true, result.data(), length);
  }
  if (length < 0) {
    fmt::print(stderr, "kvarn: llama.cpp does not know this model's chat format; the prompt is used as it is\n");
    return plain;
  }
  result.resize(length);
  return result;
}

std::vector<llama_token> ModelSession::tokenize(const std::string& text) const { return tokenize(text, Part::kWhole); }

std::vector<llama_token> ModelSession::tokenize_part(const std::string& text) const {
  return tokenize(text, Part::kLater);
}

std::vector<llama_token> ModelSession::tokenize_turn(const std::string& text) const {
  return tokenize(text, Part::kTurn);
}

std::vector<llama_token> ModelSession::tokenize(const std::string& text, Part part) const {
  std::vector<llama_token> tokens(text.size() + 16);
  const int count =
      llama_tokenize(vocab_, text.data(), static_cast<int>(text.size()), tokens.data(), static_cast<int>(tokens.size()),
                     /*add_special=*/part == Part::kWhole, /*parse_special=*/part != Part::kLater);
  if (count < 0) {
    throw UserError("the text cannot be split into tokens", "try another one");
  }
  tokens.resize(count);
  return tokens;
}

std::string ModelSession::piece(llama_token token) const {
  char buffer[256];
  const int length = llama_token_to_piece(vocab_, token, buffer, sizeof(buffer), 0, /*special=*/false);
  return length > 0 ? std::string(buffer, length) : std::string();
}

bool ModelSession::ends_text(llama_token token) const { return llama_vocab_is_eog(vocab_, token); }

std::int64_t ModelSession::trained_context_tokens() const { return llama_model_n_ctx_train(model_.get()); }

std::int32_t ModelSession::vocabulary_size() const { return llama_vocab_n_tokens(vocab_); }

bool ModelSession::starts_text() const { return llama_vocab_get_add_bos(vocab_); }

llama_token ModelSession::start_token() const { return llama_vocab_bos(vocab_); }

std::uint32_t ModelSession::head_dimension() const {
  char text[128] = {};
  if (llama_model_meta_val_str(model_.get(), "general.architecture", text, sizeof(text)) > 0) {
    const std::string key = std::string(text) + ".attention.key_length";
    if (llama_model_meta_val_str(model_.get(), key.c_str(), text, sizeof(text)) > 0) {
      return static_cast<std::uint32_t>(std::strtoul(text, nullptr, 10));
    }
  }
  return static_cast<std::uint32_t>(llama_model_n_embd(model_.get()) / std::max(1, llama_model_n_head(model_.get())));
}

std::size_t ModelSession::f16_bytes_per_token() const {
  const auto layers = static_cast<std::size_t>(llama_model_n_layer(model_.get()));
  const auto kv_heads = static_cast<std::size_t>(llama_model_n_head_kv(model_.get()));
  constexpr std::size_t kKeyAndValueBytes = 2 * 2;
  return layers * kv_heads * head_dimension() * kKeyAndValueBytes;
}

std::string ModelSession::description() const {
  char buffer[128] = {};
  llama_model_desc(model_.get(), buffer, sizeof(buffer));
  return fmt::format("{} ({})", std::filesystem::path(file_).filename().string(), buffer);
}

std::string ModelSession::identity() const {
  char buffer[128] = {};
  llama_model_desc(model_.get(), buffer, sizeof(buffer));
  return fmt::format("{}, {} parameters, {} bytes, {} tokens", buffer, llama_model_n_params(model_.get()),
                     llama_model_size(model_.get()), vocabulary_size());
}

}  // namespace kvarn::program
