#include "device.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <set>

#include "cache_attention.hpp"
#include "cache_buffer.hpp"
#include "cache_tensor.hpp"
#include "ggml-backend-impl.h"
#include "ggml-impl.h"
#include "graph_backend.hpp"
#include "host_features.hpp"
#include "layer_probe.hpp"
#include "machine_memory.hpp"
#include "plain_mode.hpp"

namespace ggml_kvarn {
namespace {

// What all buffers of the process share.
struct Shared {
    std::mutex mutex;
    Settings settings;
    kvarn::MemoryLimit limit;
    std::set<CacheBuffer *> buffers;
    std::atomic<bool> saw_cache{false};
    std::atomic<bool> said_lost_layers{false};
};

Shared & shared() {
    static Shared instance;
    return instance;
}

CacheBuffer & context_of(ggml_backend_buffer_t buffer) {
    return *static_cast<CacheBuffer *>(buffer->context);
}

// ---- buffer ----

void buffer_free(ggml_backend_buffer_t buffer) {
    auto * context = static_cast<CacheBuffer *>(buffer->context);
    {
        std::lock_guard<std::mutex> lock(shared().mutex);
        shared().buffers.erase(context);
    }
    delete context;
}

void * buffer_get_base(ggml_backend_buffer_t buffer) {
    return context_of(buffer).base();
}

ggml_status buffer_init_tensor(ggml_backend_buffer_t buffer, ggml_tensor * tensor) {
    const bool keeps = buffer->usage == GGML_BACKEND_BUFFER_USAGE_ANY && is_memory_name(tensor->name);
    if (tensor->view_src != nullptr || !keeps) {
        return GGML_STATUS_SUCCESS;
    }
    shared().saw_cache = true;
    std::lock_guard<std::mutex> lock(context_of(buffer).mutex());
    context_of(buffer).add_tensor(tensor);
    return GGML_STATUS_SUCCESS;
}

void buffer_memset_tensor(ggml_backend_buffer_t buffer, ggml_tensor * tensor, uint8_t value, size_t offset, size_t size) {
    std::lock_guard<std::mutex> lock(context_of(buffer).mutex());
    context_of(buffer).fill(tensor, value, offset, size);
}

void buffer_set_tensor(ggml_backend_buffer_t buffer, ggml_tensor * tensor, const void * data, size_t offset, size_t size) {
    std::lock_guard<std::mutex> lock(context_of(buffer).mutex());
    context_of(buffer).set(tensor, data, offset, size);
}

void buffer_get_tensor(ggml_backend_buffer_t buffer, const ggml_tensor * tensor, void * data, size_t offset, size_t size) {
    std::lock_guard<std::mutex> lock(context_of(buffer).mutex());
    context_of(buffer).get(tensor, data, offset, size);
}

bool buffer_cpy_tensor(ggml_backend_buffer_t buffer, const ggml_tensor * src, ggml_tensor * dst) {
    if (buffer_of(src) != &context_of(buffer)) {
        return false;
    }
    std::lock_guard<std::mutex> lock(context_of(buffer).mutex());
    return context_of(buffer).copy(src, dst);
}

void buffer_clear(ggml_backend_buffer_t buffer, uint8_t value) {
    std::lock_guard<std::mutex> lock(context_of(buffer).mutex());
    context_of(buffer).clear(value);
}

// ---- buffer type ----

const char * buft_get_name(ggml_backend_buffer_type_t) {
    return "KVarN";
}

ggml_backend_buffer_t buft_alloc_buffer(ggml_backend_buffer_type_t buft, size_t size) {
    auto context = CacheBuffer::create(size, current_settings());
    if (context == nullptr) {
        return nullptr;
    }
    ggml_backend_buffer_i iface = {};
    iface.free_buffer = buffer_free;
    iface.get_base = buffer_get_base;
    iface.init_tensor = buffer_init_tensor;
    iface.memset_tensor = buffer_memset_tensor;
    iface.set_tensor = buffer_set_tensor;
    iface.get_tensor = buffer_get_tensor;
    iface.cpy_tensor = buffer_cpy_tensor;
    iface.clear = buffer_clear;
    CacheBuffer * raw = context.release();
    {
        std::lock_guard<std::mutex> lock(shared().mutex);
        shared().buffers.insert(raw);
    }
    return ggml_backend_buffer_init(buft, iface, raw, size);
}

size_t buft_get_alignment(ggml_backend_buffer_type_t) {
    return 128;
}

// ---- device ----

const char * dev_get_name(ggml_backend_dev_t) {
    return "KVarN";
}

const char * dev_get_description(ggml_backend_dev_t) {
    return "compressed KV cache in host memory";
}

// How many nominal bytes one byte holds in a long context, before any model is known: rows of 64 channels, which carry the most
// metadata of usual models, and a twentieth for the queries kept and for slack.
double usual_nominal_per_byte(const kvarn::CacheConfig & config) {
    if (config.exact) {
        return 1.0;
    }
    const auto bytes = [&](kvarn::Side side) { return static_cast<double>(kvarn::record_bytes(config.record_shape(side, 64))); };
    return 2.0 * 2.0 * 64.0 * config.tile_tokens / (1.05 * (bytes(kvarn::Side::kKey) + bytes(kvarn::Side::kValue)));
}

// What the host leaves free of a device for other programs (its --fit-target, by default). A cap leaves that alone already.
constexpr uint64_t HOST_MARGIN_BYTES = uint64_t{1} << 30;

// The host plans with nominal f16 sizes, so memory is given in nominal bytes too: what fits, once compressed. It asks after it has
// planned a context, so the figure is that context's own.
void read_memory(size_t * free, size_t * total) {
    const Settings settings = current_settings();
    const MachineMemory memory = machine_memory();
    const auto nominal = [&](uint64_t bytes) {
        const double usual = static_cast<double>(bytes) * usual_nominal_per_byte(settings.cache);
        return nominal_bytes_that_fit(settings.cache, bytes).value_or(static_cast<uint64_t>(usual));
    };
    uint64_t free_bytes = nominal(memory.available_bytes);
    if (settings.limit_bytes != 0) {
        const uint64_t left = settings.limit_bytes - std::min(settings.limit_bytes, memory_limit().taken());
        free_bytes = std::min(free_bytes, nominal(left) + HOST_MARGIN_BYTES);
    }
    *free = static_cast<size_t>(free_bytes);
    *total = static_cast<size_t>(std::max(free_bytes, nominal(memory.total_bytes)));
}

// Layers that the host takes from a device for want of memory come to lie in the same memory, uncompressed: never silently. Said as
// an error, since the host hides warnings while it plans.
void dev_get_memory(ggml_backend_dev_t, size_t * free, size_t * total) {
    read_memory(free, total);
    if (end_plan() && !shared().said_lost_layers.exchange(true)) {
        GGML_LOG_ERROR(
            "KVarN is inactive for some layers: the host (--fit) moves them to its own memory, uncompressed; -ngl 999 keeps them here\n");
    }
}

enum ggml_backend_dev_type dev_get_type(ggml_backend_dev_t) {
    return GGML_BACKEND_DEVICE_TYPE_IGPU;
}

void dev_get_props(ggml_backend_dev_t dev, ggml_backend_dev_props * props) {
    *props = {};
    props->name = dev_get_name(dev);
    props->description = dev_get_description(dev);
    props->type = dev_get_type(dev);
    read_memory(&props->memory_free, &props->memory_total);
    allow_mmap(props->caps);
}

ggml_backend_t dev_init_backend(ggml_backend_dev_t dev, const char *) {
    return make_backend(dev);
}

ggml_backend_buffer_type_t dev_get_buffer_type(ggml_backend_dev_t) {
    return buffer_type();
}

// True for tensors of the host's memory modules: what lives in our buffers from one graph to the next. Graph values live in
// compute buffers. A buffer without memory is a planning probe or stands for a weight the loader asks about.
bool on_memory_tensor(const ggml_tensor * tensor) {
    const ggml_tensor * root = root_of(tensor);
    if (root->buffer == nullptr || root->buffer->buft != buffer_type() || root->buffer->usage != GGML_BACKEND_BUFFER_USAGE_ANY) {
        return false;
    }
    return buffer_of(root) != nullptr || is_memory_name(root->name);
}

// False while the host only plans: its memory tensors stand for nothing yet.
bool has_memory(const ggml_tensor * op) {
    bool found = buffer_of(op) != nullptr;
    for (const ggml_tensor * source : op->src) {
        found = found || (source != nullptr && buffer_of(source) != nullptr);
    }
    return found;
}

// Decided by the buffers behind the tensors, never by the kind of operation: whatever reads or writes a cache is taken.
bool dev_supports_op(ggml_backend_dev_t, const ggml_tensor * op) {
    bool takes = on_memory_tensor(op);
    for (int index = 0; index < GGML_MAX_SRC && !takes; ++index) {
        takes = op->src[index] != nullptr && on_memory_tensor(op->src[index]);
    }
    if (!takes) {
        return false;
    }
    shared().saw_cache = true;
    if (!has_memory(op)) {
        note_probe(op);
    }
    if (op->op == GGML_OP_FLASH_ATTN_EXT) {
        learn_from_probe(op);
    }
    return is_view_op(op->op) || cpu_supports(op);
}

bool dev_supports_buft(ggml_backend_dev_t, ggml_backend_buffer_type_t buft) {
    return buft == buffer_type() || ggml_backend_buft_is_host(buft);
}

}  // namespace

Settings current_settings() {
    std::lock_guard<std::mutex> lock(shared().mutex);
    return shared().settings;
}

void set_current_settings(const Settings & settings) {
    std::lock_guard<std::mutex> lock(shared().mutex);
    shared().settings = settings;
    shared().limit.set(settings.limit_bytes == 0 ? kvarn::MemoryLimit::kNone : settings.limit_bytes);
}

kvarn::MemoryLimit & memory_limit() {
    return shared().limit;
}

bool saw_cache() {
    return shared().saw_cache;
}

bool learn_cache(const ggml_tensor * root) {
    CacheBuffer * buffer = buffer_of(root);
    if (buffer == nullptr) {
        return false;
    }
    std::lock_guard<std::mutex> lock(buffer->mutex());
    const bool learned = buffer->learn_tensor(root);
    shared().saw_cache = shared().saw_cache || learned;
    return learned;
}

CacheBuffer * buffer_of(const ggml_tensor * tensor) {
    const ggml_tensor * root = root_of(tensor);
    const bool ours = root->buffer != nullptr && root->buffer->buft == buffer_type() && root->buffer->context != nullptr;
    return ours ? static_cast<CacheBuffer *>(root->buffer->context) : nullptr;
}

void account_all(ggml_kvarn_account & account) {
    std::lock_guard<std::mutex> lock(shared().mutex);
    account.limit_bytes = shared().settings.limit_bytes;
    account.failed_batches = failed_batches();
    for (CacheBuffer * buffer : shared().buffers) {
        buffer->add_account(account);
    }
}

static ggml_backend_device & device_instance() {
    static ggml_backend_device instance = {};
    return instance;
}

ggml_backend_buffer_type_t buffer_type() {
    static ggml_backend_buffer_type instance = [] {
        ggml_backend_buffer_type type = {};
        type.iface.get_name = buft_get_name;
        type.iface.alloc_buffer = buft_alloc_buffer;
        type.iface.get_alignment = buft_get_alignment;
        type.device = &device_instance();
        return type;
    }();
    return &instance;
}

ggml_backend_dev_t device(ggml_backend_reg_t reg) {
    ggml_backend_device & device = device_instance();
    device.iface.get_name = dev_get_name;
    device.iface.get_description = dev_get_description;
    device.iface.get_memory = dev_get_memory;
    device.iface.get_type = dev_get_type;
    device.iface.get_props = dev_get_props;
    device.iface.init_backend = dev_init_backend;
    device.iface.get_buffer_type = dev_get_buffer_type;
    device.iface.supports_op = dev_supports_op;
    device.iface.supports_buft = dev_supports_buft;
    device.reg = reg;
    return &device;
}

}  // namespace ggml_kvarn
