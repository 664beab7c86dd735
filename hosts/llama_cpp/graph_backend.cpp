#include "graph_backend.hpp"

#include "cache_attention.hpp"
#include "device.hpp"
#include "ggml-backend-impl.h"
#include "ggml-impl.h"
#include "plain_mode.hpp"

namespace ggml_kvarn {
namespace {

struct Context {
    PlainMode plain;
    int n_threads = GGML_DEFAULT_N_THREADS;
    bool said_inactive = false;
};

Context & context_of(ggml_backend_t backend) {
    return *static_cast<Context *>(backend->context);
}

const char * get_name(ggml_backend_t) {
    return "KVarN";
}

void free_backend(ggml_backend_t backend) {
    delete static_cast<Context *>(backend->context);
    delete backend;
}

// The first synchronization after all caches are placed is the moment to say that none of them came here.
void synchronize(ggml_backend_t backend) {
    Context & context = context_of(backend);
    if (!context.said_inactive && !saw_cache()) {
        GGML_LOG_WARN("KVarN is inactive: the host keeps the cache in its own memory (-ngl 0, -nkvo, or a model without a cache)\n");
        context.said_inactive = true;
    }
}

const ggml_tensor * find_attention(const ggml_cgraph * graph, int from) {
    for (int index = from + 1; index < graph->n_nodes; ++index) {
        if (reads_what_is_written(graph->nodes[index], graph->nodes[from])) {
            return classify(graph->nodes[index]) == NodeKind::ATTENTION ? graph->nodes[index] : nullptr;
        }
    }
    return nullptr;
}

ggml_status compute_node(Context & context, const ggml_cgraph * graph, int index) {
    ggml_tensor * node = graph->nodes[index];
    switch (classify(node)) {
        case NodeKind::WRITE: {
            const ggml_tensor * attention = find_attention(graph, index);
            if (classify(node) == NodeKind::WRITE) {  // looking ahead may have demoted the layer
                return write_rows(node, attention);
            }
            break;
        }
        case NodeKind::ATTENTION:
            return attend(node, context.n_threads);
        case NodeKind::SHIFT:
            return shift(node, context.plain);
        case NodeKind::PLAIN:
            break;
    }
    ggml_tensor * nodes[] = {node};
    return context.plain.compute(nodes);
}

ggml_status graph_compute(ggml_backend_t backend, ggml_cgraph * graph) {
    Context & context = context_of(backend);
    context.plain.set_threads(context.n_threads);
    for (int index = 0; index < graph->n_nodes; ++index) {
        if (is_view_op(graph->nodes[index]->op) || ggml_is_empty(graph->nodes[index])) {
            continue;
        }
        if (const ggml_status status = compute_node(context, graph, index); status != GGML_STATUS_SUCCESS) {
            return status;
        }
    }
    return GGML_STATUS_SUCCESS;
}

ggml_guid_t guid() {
    static ggml_guid id = {0x6b, 0x76, 0x61, 0x72, 0x6e, 0x2d, 0x67, 0x67, 0x6d, 0x6c, 0x2d, 0x62, 0x65, 0x6e, 0x64, 0x31};
    return &id;
}

}  // namespace

ggml_backend_t make_backend(ggml_backend_dev_t device) {
    auto * backend = new ggml_backend{};
    backend->guid = guid();
    backend->iface.get_name = get_name;
    backend->iface.free = free_backend;
    backend->iface.synchronize = synchronize;
    backend->iface.graph_compute = graph_compute;
    backend->device = device;
    backend->context = new Context;
    return backend;
}

bool is_backend(ggml_backend_t backend) {
    return backend != nullptr && ggml_guid_matches(backend->guid, guid());
}

void set_n_threads(ggml_backend_t backend, int n_threads) {
    if (is_backend(backend) && n_threads > 0) {
        context_of(backend).n_threads = n_threads;
    }
}

}  // namespace ggml_kvarn
