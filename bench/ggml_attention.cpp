#include "ggml_attention.hpp"

#include <algorithm>

#include "user_error.hpp"

namespace kvarn::bench {

using program::UserError;

BackendPointer make_cpu_backend(int threads) {
  BackendPointer backend(ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr));
  if (backend == nullptr) throw UserError("llama.cpp's CPU backend does not start", "run ./kvarn doctor");
  ggml_backend_reg_t registry = ggml_backend_dev_backend_reg(ggml_backend_get_device(backend.get()));
  const auto set_threads = reinterpret_cast<ggml_backend_set_n_threads_t>(
      ggml_backend_reg_get_proc_address(registry, "ggml_backend_set_n_threads"));
  if (set_threads == nullptr) throw UserError("llama.cpp's CPU backend takes no thread count", "run ./kvarn doctor");
  set_threads(backend.get(), threads);
  return backend;
}

GgmlAttention::GgmlAttention(ggml_backend_t backend, const AttentionProblem& problem, ggml_type type,
                             std::uint32_t copies)
    : backend_(backend), type_(type) {
  const HeadShape& shape = problem.size().shape;
  constexpr std::size_t kTensorsPerCopy = 16;  // K, V, their views, the node, and some to spare
  context_.reset(ggml_init({.mem_size = (kTensorsPerCopy * copies + 4) * ggml_tensor_overhead() +
                                        copies * ggml_graph_overhead_custom(kTensorsPerCopy, false),
                            .mem_buffer = nullptr,
                            .no_alloc = true}));
  ggml_tensor* q = ggml_new_tensor_3d(context_.get(), GGML_TYPE_F32, shape.dim, shape.heads, problem.size().queries);
  ggml_tensor* mask = ggml_new_tensor_2d(context_.get(), GGML_TYPE_F16, problem.size().keys, problem.size().queries);
  for (std::uint32_t copy = 0; copy < copies; ++copy) copies_.push_back(build(problem, q, mask));
  for (const Copy& copy : copies_) {
    ggml_build_forward_expand(copy.graph, copy.out);
  }
  buffer_.reset(ggml_backend_alloc_ctx_tensors(context_.get(), backend));
  if (buffer_ == nullptr) throw UserError("not enough memory for llama.cpp's cache", "measure fewer keys or layers");
  ggml_backend_tensor_set(q, problem.q().data(), 0, problem.q().size_bytes());
  ggml_backend_tensor_set(mask, problem.mask().data(), 0, problem.mask().size_bytes());
  for (const Copy& copy : copies_) {
    fill(copy.k, problem.k());
    fill(copy.v, problem.v());
  }
}

// The views and the precision are those of llama.cpp's build_attn_mha.
GgmlAttention::Copy GgmlAttention::build(const AttentionProblem& problem, ggml_tensor* q, ggml_tensor* mask) {
  const HeadShape& shape = problem.size().shape;
  ggml_context* context = context_.get();
  const auto keys = static_cast<std::int64_t>(problem.size().keys);
  const auto row_values = static_cast<std::int64_t>(problem.row_values());
  const auto heads_apart = [&](ggml_tensor* rows) {
    ggml_tensor* view = ggml_view_3d(context, rows, shape.dim, shape.kv_heads, keys, ggml_row_size(type_, shape.dim),
                                     ggml_row_size(type_, row_values), 0);
    return ggml_permute(context, view, 0, 2, 1, 3);
  };
  Copy copy{};
  copy.k = ggml_new_tensor_2d(context, type_, row_values, keys);
  copy.v = ggml_new_tensor_2d(context, type_, row_values, keys);
  copy.out = ggml_flash_attn_ext(context, ggml_permute(context, q, 0, 2, 1, 3), heads_apart(copy.k),
                                 heads_apart(copy.v), mask, problem.scale(), 0.0f, 0.0f);
  ggml_prec_set_acc(copy.out, GGML_PREC_F32);
  copy.graph = ggml_new_graph_custom(context, 16, false);
  return copy;
}

void GgmlAttention::fill(ggml_tensor* tensor, std::span<const HalfBits> values) const {
  constexpr std::int64_t kRowsAtOnce = 64;
  const std::int64_t row_values = tensor->ne[0];
  std::vector<float> floats;
  std::vector<std::byte> packed(kRowsAtOnce * ggml_row_size(type_, row_values));
  for (std::int64_t row = 0; row < tensor->ne[1]; row += kRowsAtOnce) {
    const std::int64_t rows = std::min(kRowsAtOnce, tensor->ne[1] - row);
    const auto part =
        values.subspan(static_cast<std::size_t>(row * row_values), static_cast<std::size_t>(rows * row_values));
    const std::size_t bytes = static_cast<std::size_t>(rows) * ggml_row_size(type_, row_values);
    const std::size_t offset = static_cast<std::size_t>(row) * ggml_row_size(type_, row_values);
    if (type_ == GGML_TYPE_F16) {
      ggml_backend_tensor_set(tensor, part.data(), offset, bytes);
      continue;
    }
    floats.resize(part.size());
    std::transform(part.begin(), part.end(), floats.begin(), half_to_float);
    if (type_ == GGML_TYPE_F32) {
      ggml_backend_tensor_set(tensor, floats.data(), offset, bytes);
      continue;
    }
    ggml_quantize_chunk(type_, floats.data(), packed.data(), 0, rows, row_values, nullptr);
    ggml_backend_tensor_set(tensor, packed.data(), offset, bytes);
  }
}

void GgmlAttention::run() {
  last_ = next_;
  next_ = (next_ + 1) % copies_.size();
  if (ggml_backend_graph_compute(backend_, copies_[last_].graph) != GGML_STATUS_SUCCESS) {
    throw UserError("llama.cpp cannot compute its own attention", "run ./kvarn doctor");
  }
}

std::size_t GgmlAttention::read_bytes() const { return ggml_nbytes(copies_[0].k) + ggml_nbytes(copies_[0].v); }

std::span<const float> GgmlAttention::out() const {
  const ggml_tensor* out = copies_[last_].out;
  return {static_cast<const float*>(out->data), static_cast<std::size_t>(ggml_nelements(out))};
}

}  // namespace kvarn::bench
