#include "model_probe.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "model_session.hpp"
#include "user_error.hpp"

namespace kvarn::program {
namespace {

// Twice what any model's layers keep of a window with its micro-batch: there, windows are shorter than the context.
constexpr std::uint32_t kLongTokens = 1 << 16;

std::uint64_t f16_bytes(const ggml_kvarn_layer& layer) {
  const std::uint64_t values = std::uint64_t{layer.kv_heads} * (layer.k_dim + layer.v_dim);
  return layer.plain_bytes + values * 2 * layer.cells * layer.streams;
}

}  // namespace

ModelProbe::ModelProbe(const std::string& file, const Engine& engine) : engine_(&engine), file_(file) {
  check_model_file(file);
  llama_model_params params = llama_model_default_params();
  params.no_alloc = true;
  params.load_mode = LLAMA_LOAD_MODE_NONE;
  Engine::take_error();
  model_.reset(llama_model_load_from_file(file.c_str(), params));
  if (!model_) {
    throw UserError(fmt::format("cannot read the model '{}': {}", file, Engine::take_error()), "is the file whole?");
  }
  if (!llama_model_has_decoder(model_.get()) || llama_model_has_encoder(model_.get())) {
    throw UserError(fmt::format("'{}' is not a model that continues text", file), "give a decoder-only model");
  }
  if (llama_model_n_swa(model_.get()) <= 0) return;
  const std::uint32_t window = static_cast<std::uint32_t>(llama_model_n_swa(model_.get()));
  const ProbedContext longest = probe_unmarked({.tokens = std::max(kLongTokens, 2 * window)});
  std::uint32_t cells = 0;
  for (const ggml_kvarn_layer& layer : longest.layers) cells = std::max(cells, layer.cells);
  for (const ggml_kvarn_layer& layer : longest.layers) {
    if (layer.query_heads != 0 && layer.cells < cells) window_layers_.push_back(layer.layer);
  }
}

ProbedContext ModelProbe::probe_unmarked(const ContextLayout& layout) const {
  llama_context_params params = llama_context_default_params();
  params.n_ctx = layout.tokens * layout.sequences;
  params.n_ubatch = layout.micro_batch_tokens;
  params.n_batch = std::max(params.n_batch, layout.micro_batch_tokens);
  params.swa_full = false;  // as in llama.cpp's own programs
  params.n_seq_max = layout.sequences;
  params.kv_unified = layout.unified;
  params.n_outputs_max = layout.sequences;
  params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_AUTO;
  Engine::take_error();
  Engine::ComputeBuffers buffers;
  const ContextPointer context(llama_init_from_model(model_.get(), params));
  if (!context) {
    throw UserError(
        fmt::format("cannot plan {} contexts of {} tokens: {}", layout.sequences, layout.tokens, Engine::take_error()),
        "try a smaller -c");
  }
  ProbedContext probed{engine_->take_probed_layers(), buffers.bytes(), 0};
  for (const ggml_kvarn_layer& layer : probed.layers) probed.host_cache_bytes += f16_bytes(layer);
  return probed;
}

ProbedContext ModelProbe::probe(const ContextLayout& layout) const {
  ProbedContext probed = probe_unmarked(layout);
  for (ggml_kvarn_layer& layer : probed.layers) {
    if (std::binary_search(window_layers_.begin(), window_layers_.end(), layer.layer)) {
      layer.window_tokens = static_cast<std::uint32_t>(llama_model_n_swa(model_.get()));
    }
  }
  return probed;
}

std::uint64_t ModelProbe::weight_bytes() const { return llama_model_size(model_.get()); }

std::uint32_t ModelProbe::trained_context_tokens() const {
  return static_cast<std::uint32_t>(std::max(0, llama_model_n_ctx_train(model_.get())));
}

std::string ModelProbe::description() const {
  char buffer[128] = {};
  llama_model_desc(model_.get(), buffer, sizeof(buffer));
  return fmt::format("{} ({})", std::filesystem::path(file_).filename().string(), buffer);
}

}  // namespace kvarn::program
