#include "graph_backend.hpp"

#include <vector>

#include "cache_attention.hpp"
#include "device.hpp"
#include "ggml-backend-impl.h"
#include "ggml-impl.h"
#include "plain_mode.hpp"

namespace ggml_kvarn {
namespace {

struct Context {
    PlainMode plain;
    std::vector<ggml_tensor *> waiting;  // nodes for the CPU, in order, until one comes that is ours
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

// All caches of a graph must be known before the first is written: a layer's K is written before its V is seen.
void learn_caches(const ggml_cgraph * graph) {
    bool learned = false;
    for (int index = 0; index < graph->n_nodes; ++index) {
        if (graph->nodes[index]->op == GGML_OP_SET_ROWS) {
            learned = learn_cache(root_of(graph->nodes[index])) || learned;
        }
    }
    for (int index = 0; index < graph->n_nodes && learned; ++index) {
        if (graph->nodes[index]->op == GGML_OP_FLASH_ATTN_EXT) {
            learn_from_probe(graph->nodes[index]);
        }
    }
}

ggml_status compute_waiting(Context & context) {
    const ggml_status status = context.plain.compute(context.waiting);
    context.waiting.clear();
    return status;
}

// Nodes that touch no served cache wait: the CPU gets a run of them as one graph, before the next node that is ours.
ggml_status compute_node(Context & context, const ggml_cgraph * graph, int index) {
    ggml_tensor * node = graph->nodes[index];
    NodeKind kind = classify(node);
    const ggml_tensor * attention = nullptr;
    if (kind == NodeKind::WRITE) {
        attention = find_attention(graph, index);
        kind = classify(node);  // looking ahead may have demoted the layer
    }
    if (kind == NodeKind::PLAIN) {
        context.waiting.push_back(node);
        return GGML_STATUS_SUCCESS;
    }
    if (const ggml_status status = compute_waiting(context); status != GGML_STATUS_SUCCESS) {
        return status;
    }
    switch (kind) {
        case NodeKind::WRITE:
            return write_rows(node, attention);
        case NodeKind::ATTENTION:
            return attend(node, context.n_threads);
        default:
            return shift(node, context.plain);
    }
}

ggml_status graph_compute(ggml_backend_t backend, ggml_cgraph * graph) {
    Context & context = context_of(backend);
    context.plain.set_threads(context.n_threads);
    context.waiting.clear();
    learn_caches(graph);
    for (int index = 0; index < graph->n_nodes; ++index) {
        if (is_view_op(graph->nodes[index]->op) || ggml_is_empty(graph->nodes[index])) {
            continue;
        }
        if (const ggml_status status = compute_node(context, graph, index); status != GGML_STATUS_SUCCESS) {
            return status;
        }
    }
    return compute_waiting(context);
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
