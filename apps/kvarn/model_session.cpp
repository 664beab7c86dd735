#include "model_session.hpp"

#include <fmt/format.h>

#include <cstdio>
#include <cstring>
#include <filesystem>

#include "engine.hpp"
#include "user_error.hpp"

namespace kvarn::program {

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
  Engine::take_error();
  ContextPointer context(llama_init_from_model(model_.get(), params));
  if (!context) {
    throw UserError(
        fmt::format("cannot make a context of {} tokens: {}", settings.context_tokens, Engine::take_error()),
        "try a smaller -c");
  }
  return context;
}

std::string ModelSession::apply_chat_template(const std::string& text) const {
  const char* format = llama_model_chat_template(model_.get(), nullptr);
  if (format == nullptr) {
    return text;
  }
  const llama_chat_message message = {"user", text.c_str()};
  std::string result(text.size() + 1024, '\0');
  int length = llama_chat_apply_template(format, &message, 1, true, result.data(), static_cast<int>(result.size()));
  if (length > static_cast<int>(result.size())) {
    result.resize(length);
    length = llama_chat_apply_template(format, &message, 1, true, result.data(), length);
  }
  if (length < 0) {
    fmt::print(stderr, "kvarn: llama.cpp does not know this model's chat format; the prompt is used as it is\n");
    return text;
  }
  result.resize(length);
  return result;
}

std::vector<llama_token> ModelSession::tokenize(const std::string& text) const {
  std::vector<llama_token> tokens(text.size() + 16);
  const int count = llama_tokenize(vocab_, text.data(), static_cast<int>(text.size()), tokens.data(),
                                   static_cast<int>(tokens.size()), /*add_special=*/true, /*parse_special=*/true);
  if (count < 0) {
    throw UserError("the prompt cannot be split into tokens", "try another prompt");
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

std::string ModelSession::description() const {
  char buffer[128] = {};
  llama_model_desc(model_.get(), buffer, sizeof(buffer));
  return fmt::format("{} ({})", std::filesystem::path(file_).filename().string(), buffer);
}

}  // namespace kvarn::program
