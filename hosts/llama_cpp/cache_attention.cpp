#include "cache_attention.hpp"

#include <atomic>
#include <cstring>
#include <new>
#include <string>

#include "byte_count.hpp"
#include "ggml-impl.h"
#include "thread_team.hpp"

namespace ggml_kvarn {
namespace {

// The node itself or its first source that lies in a served cache, and the buffer it lies in; nullptr if there is none.
const ggml_tensor * first_served(const ggml_tensor * node, CacheBuffer *& buffer) {
    const auto is_served = [&](const ggml_tensor * tensor) {
        buffer = buffer_of(tensor);
        return buffer != nullptr && buffer->served(tensor) != nullptr;
    };
    if (is_served(node)) {
        return node;
    }
    for (const ggml_tensor * source : node->src) {
        if (source != nullptr && is_served(source)) {
            return source;
        }
    }
    return nullptr;
}

bool is_write(const ggml_tensor * node, CacheBuffer & buffer) {
    const CacheTensor * cached = buffer.served(node);
    if (node->op != GGML_OP_SET_ROWS || cached == nullptr) {
        return false;
    }
    const ggml_tensor * rows = node->src[0];
    return node->data == cached->root->data && node->ne[0] == cached->root->ne[0] && node->ne[2] == 1 && node->ne[3] == 1 &&
           node->nb[1] == cached->root->nb[1] && ggml_nelements(node) == ggml_nelements(cached->root) && rows->ne[0] == node->ne[0] &&
           rows->ne[2] == 1 && rows->ne[3] == 1 && rows->nb[0] == ggml_type_size(rows->type) && ggml_is_contiguous(node->src[1]);
}

// The view a permuted K or V must be: [dim, n_kv, kv_heads, streams] over whole rows from cell 0 of a stream.
bool is_attention_view(const ggml_tensor * view, const CacheTensor & cached) {
    const ggml_tensor * root = cached.root;
    const size_t offset = offset_in(root, view);
    return view->type == GGML_TYPE_F16 && view->nb[0] == root->nb[0] && view->nb[1] == root->nb[1] &&
           view->ne[0] * view->ne[2] == root->ne[0] && view->nb[2] == view->ne[0] * root->nb[0] && view->ne[1] <= root->ne[1] &&
           (view->ne[3] == 1 || view->nb[3] == root->nb[2]) && offset % root->nb[2] == 0;
}

bool is_attention(const ggml_tensor * node, CacheBuffer & buffer) {
    if (node->op != GGML_OP_FLASH_ATTN_EXT) {
        return false;
    }
    const ggml_tensor * q = node->src[0];
    const ggml_tensor * mask = node->src[3];
    CacheTensor * k = buffer.served(node->src[1]);
    CacheTensor * v = buffer.served(node->src[2]);
    if (k == nullptr || v == nullptr || k == v || k->other != v || k->name.side != kvarn::Side::kKey) {
        return false;
    }
    const bool mask_fits =
        mask == nullptr || (mask->type == GGML_TYPE_F16 && mask->ne[0] == node->src[1]->ne[1] && mask->ne[1] >= q->ne[1] &&
                            mask->ne[2] == 1 && mask->ne[3] == node->src[1]->ne[3] && mask->nb[0] == sizeof(ggml_fp16_t));
    const int64_t kv_heads = node->src[1]->ne[2];
    return mask_fits && is_attention_view(node->src[1], *k) && is_attention_view(node->src[2], *v) && node->src[2]->ne[2] == kv_heads &&
           node->src[1]->ne[1] == node->src[2]->ne[1] && node->src[1]->ne[0] % 16 == 0 && node->src[2]->ne[0] % 16 == 0 &&
           q->ne[2] % kv_heads == 0 && q->type == GGML_TYPE_F32 && q->nb[0] == sizeof(float) && q->ne[3] == node->src[1]->ne[3] &&
           node->type == GGML_TYPE_F32 && static_cast<uint64_t>(std::max(node->src[1]->ne[0], node->src[2]->ne[0])) <= kvarn::kMaxRows;
}

bool is_shift(const ggml_tensor * node, CacheBuffer & buffer) {
    const CacheTensor * cached = buffer.served(node);
    return node->op == GGML_OP_ROPE && cached != nullptr && cached->name.side == kvarn::Side::kKey &&
           buffer.served(node->src[0]) == cached && node->ne[2] == cached->root->ne[1] * cached->root->ne[2] &&
           node->nb[2] == cached->root->nb[1] && node->type == GGML_TYPE_F16;
}

int64_t row_index(const ggml_tensor * indices, int64_t at) {
    return indices->type == GGML_TYPE_I64 ? static_cast<const int64_t *>(indices->data)[at]
                                          : static_cast<const int32_t *>(indices->data)[at];
}

// The mask of an attention node; `zeros` stands in for a missing one.
kvarn::BatchMask batch_mask(const ggml_tensor * attention, const CacheTensor & k, std::vector<kvarn::HalfBits> & zeros) {
    const ggml_tensor * keys = attention->src[1];
    const ggml_tensor * mask = attention->src[3];
    const size_t offset = offset_in(k.root, keys);
    kvarn::BatchMask batch;
    batch.first_stream = static_cast<uint32_t>(offset / k.root->nb[2]);
    batch.slices = static_cast<uint32_t>(keys->ne[3]);
    batch.queries = static_cast<uint32_t>(attention->src[0]->ne[1]);
    batch.columns = static_cast<uint32_t>(keys->ne[1]);
    if (mask == nullptr) {
        zeros.assign(batch.columns, 0);
        batch.data = zeros.data();
        return batch;
    }
    batch.data = static_cast<const kvarn::HalfBits *>(mask->data);
    batch.query_stride = mask->nb[1] / sizeof(kvarn::HalfBits);
    batch.slice_stride = mask->nb[3] / sizeof(kvarn::HalfBits);
    return batch;
}

kvarn::HeadCounts head_counts(const ggml_tensor * attention) {
    return {static_cast<uint32_t>(attention->src[0]->ne[2]), static_cast<uint32_t>(attention->src[1]->ne[2]),
            static_cast<uint32_t>(attention->src[1]->ne[0]), static_cast<uint32_t>(attention->src[2]->ne[0])};
}

kvarn::Status observe_write(CacheBuffer & buffer, const ggml_tensor * indices, const ggml_tensor * attention) {
    std::vector<kvarn::HalfBits> zeros;
    const kvarn::BatchMask mask = batch_mask(attention, *buffer.served(attention->src[1]), zeros);
    const int64_t n_cells = buffer.cache().cells();
    if (static_cast<int64_t>(mask.slices) * mask.queries != ggml_nelements(indices)) {
        return kvarn::Status::kOk;
    }
    std::vector<uint32_t> cells(static_cast<size_t>(ggml_nelements(indices)));
    for (size_t at = 0; at < cells.size(); ++at) {
        const int64_t first = static_cast<int64_t>(mask.first_stream + at / mask.queries) * n_cells;
        const int64_t cell = row_index(indices, static_cast<int64_t>(at)) - first;
        if (cell < 0 || cell >= mask.columns) {
            return kvarn::Status::kOk;
        }
        cells[at] = static_cast<uint32_t>(cell);
    }
    return buffer.cache_for_batch().observe(mask, cells);
}

kvarn::Status write_row(kvarn::KvCache & cache, kvarn::StoreId store, int64_t index, const ggml_tensor * rows, int64_t at) {
    const auto stream = static_cast<uint32_t>(index / cache.cells());
    const auto cell = static_cast<uint32_t>(index % cache.cells());
    const char * row = static_cast<const char *>(rows->data) + at * rows->nb[1];
    return rows->type == GGML_TYPE_F32 ? cache.write_row(store, stream, cell, reinterpret_cast<const float *>(row))
                                       : cache.write_row(store, stream, cell, reinterpret_cast<const kvarn::HalfBits *>(row));
}

std::atomic<uint64_t> & failed_batch_count() {
    static std::atomic<uint64_t> count{0};
    return count;
}

void say_out_of_memory() {
    const kvarn::MemoryLimit & limit = memory_limit();
    const std::string held = format_byte_count(limit.taken());
    if (limit.bytes() == kvarn::MemoryLimit::kNone) {
        GGML_LOG_ERROR("KVarN: out of memory with %s in the cache: this batch fails; use fewer or shorter contexts, or fewer bits\n",
                       held.c_str());
    } else {
        GGML_LOG_ERROR("KVarN: the cache is full (%s of %s, KVARN_LIMIT): this batch fails; use fewer or shorter contexts, or fewer bits\n",
                       held.c_str(), format_byte_count(limit.bytes()).c_str());
    }
}

// Runs one operation on a cache. When memory is missing, for rows or for anything else, it fails as a whole.
template <class Operation>
ggml_status run_within_memory(CacheBuffer & buffer, const ggml_tensor * node, Operation && operation) {
    kvarn::Status status = kvarn::Status::kOutOfMemory;
    try {
        status = operation();
    } catch (const std::bad_alloc &) {
    }
    if (status == kvarn::Status::kOk) {
        return GGML_STATUS_SUCCESS;
    }
    buffer.cache().forget_batch();
    if (status != kvarn::Status::kOutOfMemory) {
        GGML_LOG_ERROR("KVarN: %s over %s failed: %s\n", ggml_op_name(node->op), node->name, kvarn::status_text(status));
        return GGML_STATUS_FAILED;
    }
    ++failed_batch_count();
    say_out_of_memory();
    return GGML_STATUS_ALLOC_FAILED;
}

}  // namespace

uint64_t failed_batches() {
    return failed_batch_count();
}

NodeKind classify(const ggml_tensor * node) {
    CacheBuffer * buffer = nullptr;
    for (;;) {
        const ggml_tensor * touched = first_served(node, buffer);
        if (touched == nullptr) {
            return NodeKind::PLAIN;
        }
        if (is_write(node, *buffer)) {
            return NodeKind::WRITE;
        }
        if (is_attention(node, *buffer)) {
            return NodeKind::ATTENTION;
        }
        if (is_shift(node, *buffer)) {
            return NodeKind::SHIFT;
        }
        std::lock_guard<std::mutex> lock(buffer->mutex());
        CacheTensor & cached = *buffer->served(touched);
        const char * reason = node->op == GGML_OP_FLASH_ATTN_EXT ? "the attention of this model has a form KVarN does not serve"
                              : node->op == GGML_OP_SET_ROWS || node->op == GGML_OP_MUL_MAT
                                  ? "flash attention is off (use -fa on or auto)"
                                  : "the host uses the cache in a way KVarN does not serve";
        buffer->demote(cached, reason);
    }
}

bool reads_what_is_written(const ggml_tensor * node, const ggml_tensor * write) {
    return node->op == GGML_OP_FLASH_ATTN_EXT && (root_of(node->src[1]) == root_of(write) || root_of(node->src[2]) == root_of(write));
}

ggml_status write_rows(const ggml_tensor * node, const ggml_tensor * attention) {
    CacheBuffer & buffer = *buffer_of(node);
    std::lock_guard<std::mutex> lock(buffer.mutex());
    kvarn::KvCache & cache = buffer.cache();
    const ggml_tensor * rows = node->src[0];
    const ggml_tensor * indices = node->src[1];
    const kvarn::StoreId store = buffer.served(node)->store;
    return run_within_memory(buffer, node, [&] {
        kvarn::Status status = attention == nullptr ? kvarn::Status::kOk : observe_write(buffer, indices, attention);
        for (int64_t at = 0; at < rows->ne[1] && status == kvarn::Status::kOk; ++at) {
            const int64_t index = row_index(indices, at);
            status = write_row(cache, store, index, rows, at);
            if (status == kvarn::Status::kOutOfMemory && cache.drop_unseen()) {
                status = write_row(cache, store, index, rows, at);
            }
        }
        return status;
    });
}

void learn_from_probe(const ggml_tensor * node) {
    CacheBuffer * buffer = node->src[1] != nullptr ? buffer_of(node->src[1]) : nullptr;
    if (buffer == nullptr || !is_attention(node, *buffer)) {
        return;
    }
    std::lock_guard<std::mutex> lock(buffer->mutex());
    (void)buffer->cache().learn_heads(buffer->served(node->src[1])->store, buffer->served(node->src[2])->store, head_counts(node));
}

ggml_status attend(const ggml_tensor * node, int n_threads) {
    CacheBuffer & buffer = *buffer_of(node->src[1]);
    std::lock_guard<std::mutex> lock(buffer.mutex());
    const ggml_tensor * q = node->src[0];
    const ggml_tensor * keys = node->src[1];
    const ggml_tensor * sinks = node->src[4];
    const CacheTensor & k = *buffer.served(keys);
    const CacheTensor & v = *buffer.served(node->src[2]);
    std::vector<kvarn::HalfBits> zeros;
    const kvarn::BatchMask mask = batch_mask(node, k, zeros);

    kvarn::AttentionParams params;
    std::memcpy(&params.scale, reinterpret_cast<const float *>(node->op_params) + 0, sizeof(float));
    std::memcpy(&params.max_bias, reinterpret_cast<const float *>(node->op_params) + 1, sizeof(float));
    std::memcpy(&params.soft_cap, reinterpret_cast<const float *>(node->op_params) + 2, sizeof(float));
    params.sinks = sinks != nullptr ? static_cast<const float *>(sinks->data) : nullptr;

    kvarn::AttentionTensors tensors;
    tensors.q = static_cast<const float *>(q->data);
    tensors.q_query = q->nb[1] / sizeof(float);
    tensors.q_head = q->nb[2] / sizeof(float);
    tensors.q_slice = q->nb[3] / sizeof(float);
    tensors.out = static_cast<float *>(node->data);
    tensors.out_head = node->nb[1] / sizeof(float);
    tensors.out_query = node->nb[2] / sizeof(float);
    tensors.out_slice = node->nb[3] / sizeof(float);

    return run_within_memory(buffer, node, [&] {
        return buffer.cache().attend(k.store, v.store, head_counts(node), params, mask, tensors, openmp_runner(n_threads));
    });
}

ggml_status shift(const ggml_tensor * node, PlainMode & plain) {
    CacheBuffer & buffer = *buffer_of(node);
    std::lock_guard<std::mutex> lock(buffer.mutex());
    const CacheTensor & k = *buffer.served(node);
    const auto * shifts = static_cast<const int32_t *>(node->src[1]->data);
    const size_t row_offset = offset_in(k.root, node);
    ggml_status result = GGML_STATUS_SUCCESS;
    const auto rope = [&](kvarn::HalfBits * rows, std::span<const uint32_t> cells, const int32_t * stream_shifts) {
        std::vector<int32_t> amounts;
        for (const uint32_t cell : cells) {
            amounts.push_back(cell == kvarn::TileView::kNoCell ? 0 : stream_shifts[cell]);
        }
        ggml_init_params params = {4 * ggml_tensor_overhead(), nullptr, true};
        ggml_context * context = ggml_init(params);
        ggml_tensor * values = ggml_new_tensor_3d(context, GGML_TYPE_F16, node->ne[0], node->ne[1], static_cast<int64_t>(cells.size()));
        values->nb[1] = node->nb[1];
        values->nb[2] = node->nb[2];
        values->nb[3] = node->nb[2] * cells.size();
        values->data = reinterpret_cast<char *>(rows) + row_offset;
        ggml_tensor * positions = ggml_new_tensor_1d(context, GGML_TYPE_I32, static_cast<int64_t>(cells.size()));
        positions->data = amounts.data();
        ggml_tensor * rotated = ggml_rope_ext_inplace(context, values, positions, node->src[2], static_cast<int>(node->ne[0]), 0, 0,
                                                      10000.0f, 1.0f, 0.0f, 1.0f, 0.0f, 0.0f);
        rotated->data = values->data;
        std::memcpy(rotated->op_params, node->op_params, sizeof(node->op_params));
        rotated->flags = node->flags;  // says that it is to be computed
        ggml_tensor * nodes[] = {rotated};
        if (const ggml_status status = plain.compute(nodes); status != GGML_STATUS_SUCCESS) {
            result = status;
        }
        ggml_free(context);
    };
    for (uint32_t stream = 0; stream < buffer.cache().stream_count(); ++stream) {
        const int32_t * stream_shifts = shifts + size_t{stream} * buffer.cache().cells();
        const kvarn::Status status = buffer.cache().edit_rows(
            k.store, stream, [&](uint32_t cell) { return stream_shifts[cell] != 0; },
            [&](kvarn::HalfBits * rows, std::span<const uint32_t> cells) { rope(rows, cells, stream_shifts); });
        if (status != kvarn::Status::kOk) {
            say_out_of_memory();
            return GGML_STATUS_ALLOC_FAILED;
        }
    }
    return result;
}

}  // namespace ggml_kvarn
