#include "layer_probe.hpp"

#include <algorithm>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "cache/cache_size.hpp"
#include "cache_buffer.hpp"
#include "cache_tensor.hpp"
#include "settings.hpp"

namespace ggml_kvarn {
namespace {

constexpr std::string_view MEMORY_PREFIX = "cache_";  // of all tensors of the host's memory modules

constexpr uint64_t BATCH_TOKENS = 512;  // of a prompt's micro-batch, the host's default: exact while it is at work

// Memory tensors by name: as many bytes as the host counts, and what attention over a pair of them looks like.
struct Probe {
    std::mutex mutex;
    std::map<std::string, size_t> bytes;
    std::map<std::string, ggml_kvarn_layer> layers;  // by the name of K
    std::map<std::string, std::string> value_of;     // name of V, by the name of K
    std::map<uint32_t, size_t> most_layers;          // that one plan had, by the number of its last layer

    void forget() {
        bytes.clear();
        layers.clear();
        value_of.clear();
    }
};

Probe & probe() {
    static Probe instance;
    return instance;
}

bool fits_cache(const ggml_tensor * root) {
    return root->type == GGML_TYPE_F16 && root->ne[0] % 16 == 0 && root->ne[3] == 1;
}

void note_attention(const ggml_tensor * op) {
    const ggml_tensor * k = op->src[1];
    const ggml_tensor * v = op->src[2];
    const ggml_tensor * k_root = root_of(k);
    const ggml_tensor * v_root = root_of(v);
    const auto name = parse_cache_name(k_root->name);
    const auto fits_head = [](const ggml_tensor * view) {
        return view->ne[0] % 16 == 0 && static_cast<uint64_t>(view->ne[0]) <= kvarn::kMaxRows;
    };
    const bool served = name && parse_cache_name(v_root->name) && k_root != v_root && fits_cache(k_root) && fits_cache(v_root) &&
                        fits_head(k) && fits_head(v) && k->ne[2] > 0 && k->ne[0] * k->ne[2] == k_root->ne[0];
    if (!served) {
        return;
    }
    ggml_kvarn_layer layer = {};
    layer.layer = name->layer;
    layer.streams = static_cast<uint32_t>(k_root->ne[2]);
    layer.cells = static_cast<uint32_t>(k_root->ne[1]);
    layer.query_heads = static_cast<uint32_t>(op->src[0]->ne[2]);
    layer.kv_heads = static_cast<uint32_t>(k->ne[2]);
    layer.k_dim = static_cast<uint32_t>(k->ne[0]);
    layer.v_dim = static_cast<uint32_t>(v->ne[0]);
    probe().layers[k_root->name] = layer;
    probe().value_of[k_root->name] = v_root->name;
}

// In one stream, the sequences share the cells of a window.
kvarn::LayerSize layer_size(const ggml_kvarn_layer & layer, uint64_t sequences) {
    kvarn::LayerSize size;
    size.layer = layer.layer;
    size.heads = {layer.query_heads, layer.kv_heads, layer.k_dim, layer.v_dim};
    size.window_tokens = layer.window_tokens;
    const uint64_t cells = uint64_t{layer.cells} * layer.streams / std::max<uint64_t>(sequences, 1);
    size.window_cells = static_cast<uint32_t>(std::min<uint64_t>(cells, layer.cells));
    return size;
}

// The context that the host planned last. Layers with fewer cells than others have a window and stay exact.
struct PlannedContext {
    std::vector<kvarn::LayerSize> layers;
    uint32_t cells = 0;  // of one stream; 0: no context was planned
    uint64_t streams = 0;
};

PlannedContext last_planned() {
    std::lock_guard<std::mutex> lock(probe().mutex);
    PlannedContext context;
    for (const auto & [name, layer] : probe().layers) {
        context.cells = std::max(context.cells, layer.cells);
        context.streams = layer.streams;
    }
    for (auto [name, layer] : probe().layers) {
        layer.window_tokens = layer.cells < context.cells ? 1 : 0;
        context.layers.push_back(layer_size(layer, layer.streams));
    }
    return context;
}

uint64_t cache_bytes(const kvarn::CacheConfig & config, const PlannedContext & context, const kvarn::CacheLoad & load) {
    return kvarn::size_of_caches(config, context.layers, load).held_bytes();
}

uint64_t nominal_bytes(const PlannedContext & context, uint64_t tokens) {
    uint64_t total = 0;
    for (const kvarn::LayerSize & layer : context.layers) {
        const uint64_t values = uint64_t{layer.heads.kv_heads} * (layer.heads.dim_k + layer.heads.dim_v);
        total += values * sizeof(kvarn::HalfBits) * std::min<uint64_t>(tokens, layer.window_cells) * context.streams;
    }
    return total;
}

}  // namespace

void note_probe(const ggml_tensor * op) {
    std::lock_guard<std::mutex> lock(probe().mutex);
    const auto note = [](const ggml_tensor * tensor) {
        const ggml_tensor * root = root_of(tensor);
        const bool ours = root->buffer != nullptr && ggml_backend_buffer_get_type(root->buffer) == buffer_type();
        if (ours && std::string_view(root->name).substr(0, MEMORY_PREFIX.size()) == MEMORY_PREFIX) {
            probe().bytes[root->name] = ggml_nbytes(root);
        }
    };
    note(op);
    for (const ggml_tensor * source : op->src) {
        if (source != nullptr) {
            note(source);
        }
    }
    if (op->op == GGML_OP_FLASH_ATTN_EXT) {
        note_attention(op);
    }
}

uint32_t take_probed_layers(ggml_kvarn_layer * layers, uint32_t capacity) {
    std::lock_guard<std::mutex> lock(probe().mutex);
    std::vector<ggml_kvarn_layer> found;
    for (const auto & [k_name, layer] : probe().layers) {
        found.push_back(layer);
        probe().bytes.erase(k_name);
        probe().bytes.erase(probe().value_of[k_name]);
    }
    for (const auto & [name, bytes] : probe().bytes) {
        ggml_kvarn_layer plain = {};
        const auto parsed = parse_cache_name(name.c_str());
        plain.layer = parsed ? parsed->layer : 0;
        plain.plain_bytes = bytes;
        found.push_back(plain);
    }
    std::stable_sort(found.begin(), found.end(), [](const auto & left, const auto & right) { return left.layer < right.layer; });
    std::copy_n(found.begin(), std::min<size_t>(found.size(), capacity), layers);
    probe().forget();
    return static_cast<uint32_t>(found.size());
}

std::optional<uint64_t> nominal_bytes_that_fit(const kvarn::CacheConfig & config, uint64_t memory_bytes) {
    const PlannedContext context = last_planned();
    if (context.cells == 0) {
        return std::nullopt;
    }
    const auto taken = [&](uint64_t tokens) {
        const uint64_t all = cache_bytes(config, context, {context.streams, tokens, 1});
        return all + cache_bytes(config, context, {1, tokens, BATCH_TOKENS}) - cache_bytes(config, context, {1, tokens, 1});
    };
    if (const uint64_t full = taken(context.cells); full <= memory_bytes) {
        const double per_byte = static_cast<double>(nominal_bytes(context, context.cells)) / static_cast<double>(full);
        return static_cast<uint64_t>(static_cast<double>(memory_bytes) * per_byte);
    }
    uint64_t good = 0;
    for (uint64_t bad = context.cells; bad - good > 1;) {
        const uint64_t middle = good + (bad - good) / 2;
        (taken(middle) <= memory_bytes ? good : bad) = middle;
    }
    return nominal_bytes(context, good);
}

bool end_plan() {
    std::lock_guard<std::mutex> lock(probe().mutex);
    uint32_t last = 0;
    for (const auto & [name, layer] : probe().layers) {
        last = std::max(last, layer.layer);
    }
    const size_t planned = probe().layers.size();
    probe().forget();
    if (planned == 0) {
        return false;
    }
    size_t & most = probe().most_layers[last];
    most = std::max(most, planned);
    return planned < most;
}

const char * plan_caches(const ggml_kvarn_load * load, ggml_kvarn_account * out) {
    static thread_local std::string error;
    if (load == nullptr || load->struct_size != sizeof(ggml_kvarn_load) || out == nullptr ||
        out->struct_size != sizeof(ggml_kvarn_account)) {
        return "the plan is asked for by another version of the plugin";
    }
    Settings settings;
    error = read_environment(settings);
    if (error.empty()) {
        error = configure(settings, load->settings);
    }
    if (!error.empty()) {
        return error.c_str();
    }
    *out = {};
    out->struct_size = sizeof(ggml_kvarn_account);
    std::vector<kvarn::LayerSize> layers;
    for (uint32_t at = 0; at < load->n_layers; ++at) {
        out->plain_bytes += load->layers[at].plain_bytes;
        if (load->layers[at].query_heads != 0) {
            layers.push_back(layer_size(load->layers[at], load->sequences));
        }
    }
    const kvarn::CacheAccount account = kvarn::size_of_caches(settings.cache, layers, {load->sequences, load->tokens, load->batch_tokens});
    out->caches = 1;
    add_account(account, *out);
    return nullptr;
}

}  // namespace ggml_kvarn
