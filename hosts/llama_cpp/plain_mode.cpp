#include "plain_mode.hpp"

#include "ggml-backend-impl.h"

namespace ggml_kvarn {

void PlainMode::set_threads(int n_threads) {
    n_threads_ = n_threads;
}

ggml_backend_t PlainMode::backend() {
    if (backend_ == nullptr) {
        backend_.reset(ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr));
    }
    if (backend_ != nullptr) {
        ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(ggml_backend_get_device(backend_.get()));
        void * function = ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads");
        if (function != nullptr) {
            reinterpret_cast<ggml_backend_set_n_threads_t>(function)(backend_.get(), n_threads_);
        }
    }
    return backend_.get();
}

ggml_status PlainMode::compute(std::span<ggml_tensor * const> nodes) {
    if (nodes.empty()) {
        return GGML_STATUS_SUCCESS;
    }
    ggml_backend_t cpu = backend();
    if (cpu == nullptr) {
        return GGML_STATUS_FAILED;
    }
    ggml_init_params params = {};
    params.mem_size = ggml_graph_overhead_custom(nodes.size(), false) + ggml_tensor_overhead();
    params.no_alloc = true;
    ggml_context * context = ggml_init(params);
    if (context == nullptr) {
        return GGML_STATUS_ALLOC_FAILED;
    }
    ggml_cgraph * graph = ggml_new_graph_custom(context, nodes.size(), false);
    for (ggml_tensor * node : nodes) {
        ggml_graph_add_node(graph, node);
    }
    const ggml_status status = ggml_backend_graph_compute(cpu, graph);
    ggml_free(context);
    return status;
}

bool cpu_supports(const ggml_tensor * op) {
    ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    return cpu != nullptr && ggml_backend_dev_supports_op(cpu, op);
}

}  // namespace ggml_kvarn
