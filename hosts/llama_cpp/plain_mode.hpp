// Plain mode: whatever KVarN does not serve itself is computed by the host's own CPU backend on plain memory.
#pragma once

#include <memory>
#include <span>

#include "ggml-backend.h"

namespace ggml_kvarn {

class PlainMode {
  public:
    void set_threads(int n_threads);
    // Computes nodes whose tensors all have plain memory.
    ggml_status compute(std::span<ggml_tensor * const> nodes);

  private:
    ggml_backend_t backend();

    struct Free {
        void operator()(ggml_backend_t backend) const { ggml_backend_free(backend); }
    };
    std::unique_ptr<ggml_backend, Free> backend_;
    int n_threads_ = 1;
};

// True if the host's CPU backend can compute this node.
bool cpu_supports(const ggml_tensor * op);

}  // namespace ggml_kvarn
