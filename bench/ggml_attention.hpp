// The host's own attention: one FLASH_ATTN_EXT on its CPU backend, laid out as llama.cpp lays out its cache.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "attention_problem.hpp"
#include "ggml-backend.h"
#include "ggml.h"

namespace kvarn::bench {

struct GgmlDeleter {
  void operator()(ggml_context* context) const { ggml_free(context); }
  void operator()(ggml_backend* backend) const { ggml_backend_free(backend); }
  void operator()(ggml_backend_buffer* buffer) const { ggml_backend_buffer_free(buffer); }
};
using BackendPointer = std::unique_ptr<ggml_backend, GgmlDeleter>;

// The CPU backend of the engine that is loaded, with this many threads. Throws UserError if there is none.
BackendPointer make_cpu_backend(int threads);

class GgmlAttention {
 public:
  // Whether a row of `dim` values is whole blocks of the type.
  static bool supports(ggml_type type, std::uint32_t dim) { return dim % ggml_blck_size(type) == 0; }

  // K and V in the given type, `copies` times in different memory. Throws UserError without memory.
  GgmlAttention(ggml_backend_t backend, const AttentionProblem& problem, ggml_type type, std::uint32_t copies);

  // One pass over the next copy.
  void run();
  std::size_t read_bytes() const;      // K and V of one copy
  std::span<const float> out() const;  // of the last pass, [queries, heads, dim]

 private:
  struct Copy {
    ggml_tensor* k;
    ggml_tensor* v;
    ggml_tensor* out;
    ggml_cgraph* graph;
  };
  Copy build(const AttentionProblem& problem, ggml_tensor* q, ggml_tensor* mask);
  void fill(ggml_tensor* tensor, std::span<const HalfBits> values) const;

  ggml_backend_t backend_;
  ggml_type type_;
  std::unique_ptr<ggml_context, GgmlDeleter> context_;
  std::unique_ptr<ggml_backend_buffer, GgmlDeleter> buffer_;
  std::vector<Copy> copies_;
  std::size_t next_ = 0;
  std::size_t last_ = 0;
};

}  // namespace kvarn::bench
