#include "schedule_context.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>

namespace schedule {
namespace {

constexpr ggml_fp16_t HIDDEN = 0xFC00;  // minus infinity

const ggml_tensor * root_of(const ggml_tensor * tensor) {
    return tensor->view_src != nullptr ? tensor->view_src : tensor;
}

// The layer whose cache this is a view of; -1 if it is none.
int cache_layer(const ggml_tensor * tensor) {
    int layer = -1;
    return std::sscanf(root_of(tensor)->name, "cache_%*1[kv]_l%d", &layer) == 1 ? layer : -1;
}

// A contiguous or strided float tensor [d0, d1, d2, d3] with dense rows, as [d3, d2, d1, d0] of `order`-ed strides.
std::vector<float> read_floats(const ggml_tensor * tensor, int middle, int inner) {
    std::vector<std::byte> bytes(ggml_nbytes(tensor));
    ggml_backend_tensor_get(tensor, bytes.data(), 0, bytes.size());
    std::vector<float> values;
    values.reserve(static_cast<size_t>(ggml_nelements(tensor)));
    const auto row = static_cast<size_t>(tensor->ne[0]);
    for (int64_t slice = 0; slice < tensor->ne[3]; ++slice) {
        for (int64_t outer = 0; outer < tensor->ne[middle]; ++outer) {
            for (int64_t index = 0; index < tensor->ne[inner]; ++index) {
                const size_t at = slice * tensor->nb[3] + outer * tensor->nb[middle] + index * tensor->nb[inner];
                values.resize(values.size() + row);
                std::memcpy(values.data() + values.size() - row, bytes.data() + at, row * sizeof(float));
            }
        }
    }
    return values;
}

// Rows [first, first + count) of a cache tensor, cells counted over all streams. In two parts, neither of which ends where a row
// ends: reads of whole rows are taken for the saving of a state, and get records.
void read_rows(const ggml_tensor * root, size_t first, size_t count, ggml_fp16_t * rows) {
    const size_t row_bytes = root->nb[1];
    const size_t bytes = count * row_bytes;
    auto * out = reinterpret_cast<std::byte *>(rows);
    ggml_backend_tensor_get(root, out, first * row_bytes, bytes - sizeof(ggml_fp16_t));
    ggml_backend_tensor_get(root, out + bytes - sizeof(ggml_fp16_t), first * row_bytes + bytes - sizeof(ggml_fp16_t), sizeof(ggml_fp16_t));
}

std::vector<ggml_fp16_t> read_seen(const ggml_tensor * view, const AttentionNode & node) {
    const ggml_tensor * root = root_of(view);
    const auto row_values = static_cast<size_t>(root->ne[0]);
    std::vector<ggml_fp16_t> rows(size_t{node.slices} * node.cells * row_values);
    for (uint32_t slice = 0; slice < node.slices; ++slice) {
        const uint8_t * seen = node.seen.data() + size_t{slice} * node.cells;
        const size_t stream = node.first_stream + slice;
        for (uint32_t cell = 0; cell < node.cells;) {
            uint32_t end = cell;
            while (end < node.cells && seen[end] != 0) {
                ++end;
            }
            if (end > cell) {
                read_rows(root, stream * static_cast<size_t>(root->ne[1]) + cell, end - cell,
                          rows.data() + (size_t{slice} * node.cells + cell) * row_values);
            }
            cell = end + 1;
        }
    }
    return rows;
}

std::vector<ggml_fp16_t> read_mask(const ggml_tensor * mask, const AttentionNode & node) {
    std::vector<std::byte> bytes(ggml_nbytes(mask));
    ggml_backend_tensor_get(mask, bytes.data(), 0, bytes.size());
    std::vector<ggml_fp16_t> rows(size_t{node.slices} * node.queries * node.cells);
    for (uint32_t slice = 0; slice < node.slices; ++slice) {
        for (uint32_t query = 0; query < node.queries; ++query) {
            std::memcpy(rows.data() + (size_t{slice} * node.queries + query) * node.cells,
                        bytes.data() + slice * mask->nb[3] + query * mask->nb[1], node.cells * sizeof(ggml_fp16_t));
        }
    }
    return rows;
}

std::vector<uint8_t> seen_cells(const AttentionNode & node) {
    std::vector<uint8_t> seen(size_t{node.slices} * node.cells);
    for (uint32_t slice = 0; slice < node.slices; ++slice) {
        for (uint32_t query = 0; query < node.queries; ++query) {
            for (uint32_t cell = 0; cell < node.cells; ++cell) {
                seen[size_t{slice} * node.cells + cell] |= node.sees(slice, query, cell) ? 1 : 0;
            }
        }
    }
    return seen;
}

std::vector<int64_t> read_indices(const ggml_tensor * indices) {
    std::vector<int64_t> values(static_cast<size_t>(ggml_nelements(indices)));
    if (indices->type == GGML_TYPE_I64) {
        ggml_backend_tensor_get(indices, values.data(), 0, values.size() * sizeof(int64_t));
        return values;
    }
    std::vector<int32_t> narrow(values.size());
    ggml_backend_tensor_get(indices, narrow.data(), 0, narrow.size() * sizeof(int32_t));
    std::copy(narrow.begin(), narrow.end(), values.begin());
    return values;
}

}  // namespace

bool AttentionNode::sees(uint32_t slice, uint32_t query, uint32_t cell) const {
    return mask[(size_t{slice} * queries + query) * cells + cell] != HIDDEN;
}

std::unique_ptr<ScheduleContext> ScheduleContext::create(const std::string & model_file, const ContextSettings & settings) {
    std::unique_ptr<ScheduleContext> made(new ScheduleContext());
    ggml_backend_dev_t no_device[] = {nullptr};
    llama_model_params model_params = llama_model_default_params();
    model_params.progress_callback = [](float, void *) { return true; };
    if (!settings.on_plugin) {
        model_params.devices = no_device;
        model_params.n_gpu_layers = 0;
    }
    made->model_.reset(llama_model_load_from_file(model_file.c_str(), model_params));
    if (made->model_ == nullptr) {
        return nullptr;
    }
    llama_context_params params = llama_context_default_params();
    params.n_ctx = settings.context;
    params.n_batch = 256;
    params.n_ubatch = settings.ubatch;
    params.n_seq_max = SEQUENCES;
    params.n_threads = params.n_threads_batch = settings.threads;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    params.kv_unified = settings.unified;
    params.swa_full = settings.full_window;
    params.cb_eval = on_node;
    params.cb_eval_user_data = made.get();
    made->context_.reset(llama_init_from_model(made->model_.get(), params));
    return made->context_ != nullptr ? std::move(made) : nullptr;
}

int32_t ScheduleContext::n_vocab() const {
    return llama_vocab_n_tokens(llama_model_get_vocab(model_.get()));
}

void ScheduleContext::watch(bool on) {
    watching_ = on;
    nodes_.clear();
}

llama_pos ScheduleContext::first_position(llama_seq_id sequence) const {
    return llama_memory_seq_pos_min(llama_get_memory(context_.get()), sequence);
}

llama_pos ScheduleContext::last_position(llama_seq_id sequence) const {
    return llama_memory_seq_pos_max(llama_get_memory(context_.get()), sequence);
}

bool ScheduleContext::can_shift() const {
    return llama_memory_can_shift(llama_get_memory(context_.get()));
}

bool ScheduleContext::on_node(ggml_tensor * node, bool ask, void * self) {
    auto * context = static_cast<ScheduleContext *>(self);
    if (ask) {
        return context->watching_ && context->wants(node);
    }
    context->record(node);
    return true;
}

// A graph may only be cut behind an attention node: the plugin looks at a write and its attention together.
bool ScheduleContext::wants(const ggml_tensor * node) {
    if (node->op == GGML_OP_SET_ROWS && cache_layer(node) >= 0) {
        write_indices_ = node->src[1];
    }
    return node->op == GGML_OP_FLASH_ATTN_EXT && cache_layer(node->src[1]) >= 0;
}

void ScheduleContext::record(const ggml_tensor * tensor) {
    const ggml_tensor * q = tensor->src[0];
    const ggml_tensor * k = tensor->src[1];
    const ggml_tensor * v = tensor->src[2];
    AttentionNode node;
    node.layer = cache_layer(k);
    node.first_stream = static_cast<uint32_t>(k->view_offs / root_of(k)->nb[2]);
    node.slices = static_cast<uint32_t>(k->ne[3]);
    node.queries = static_cast<uint32_t>(q->ne[1]);
    node.cells = static_cast<uint32_t>(k->ne[1]);
    node.cells_per_stream = static_cast<uint32_t>(root_of(k)->ne[1]);
    node.heads = static_cast<uint32_t>(q->ne[2]);
    node.kv_heads = static_cast<uint32_t>(k->ne[2]);
    node.dim_k = static_cast<uint32_t>(k->ne[0]);
    node.dim_v = static_cast<uint32_t>(v->ne[0]);
    std::memcpy(&node.scale, tensor->op_params, sizeof(float));
    std::memcpy(&node.soft_cap, reinterpret_cast<const std::byte *>(tensor->op_params) + 2 * sizeof(float), sizeof(float));
    node.q = read_floats(q, 1, 2);
    node.out = read_floats(tensor, 2, 1);
    node.mask = read_mask(tensor->src[3], node);
    node.seen = seen_cells(node);
    node.k = read_seen(k, node);
    node.v = read_seen(v, node);
    node.written = read_indices(write_indices_);
    nodes_.push_back(std::move(node));
}

int64_t ScheduleContext::decode(const Operation & operation) {
    const auto count = static_cast<int32_t>(operation.tokens.size());
    llama_batch batch = llama_batch_init(count, 0, SEQUENCES);
    batch.n_tokens = count;
    for (int32_t at = 0; at < count; ++at) {
        const Token & token = operation.tokens[static_cast<size_t>(at)];
        batch.token[at] = token.id;
        batch.pos[at] = token.position;
        batch.n_seq_id[at] = static_cast<int32_t>(token.sequences.size());
        std::copy(token.sequences.begin(), token.sequences.end(), batch.seq_id[at]);
        batch.logits[at] = 1;
    }
    nodes_.clear();
    logits_.clear();
    const int status = llama_decode(context_.get(), batch);
    if (status == 0) {
        const size_t row = static_cast<size_t>(n_vocab());
        logits_.resize(row * static_cast<size_t>(count));
        for (int32_t at = 0; at < count; ++at) {
            std::copy_n(llama_get_logits_ith(context_.get(), at), row,
                        logits_.begin() + static_cast<std::ptrdiff_t>(row * static_cast<size_t>(at)));
        }
    }
    llama_batch_free(batch);
    return status;
}

int64_t ScheduleContext::save(const Operation & operation) {
    slots_.resize(std::max<size_t>(slots_.size(), operation.slot + 1));
    std::vector<uint8_t> & slot = slots_[operation.slot];
    if (operation.kind == Kind::SAVE_WHOLE) {
        slot.resize(llama_state_get_size(context_.get()));
        return static_cast<int64_t>(llama_state_get_data(context_.get(), slot.data(), slot.size()));
    }
    slot.resize(llama_state_seq_get_size_ext(context_.get(), operation.sequence, operation.flags));
    return static_cast<int64_t>(
        llama_state_seq_get_data_ext(context_.get(), slot.data(), slot.size(), operation.sequence, operation.flags));
}

int64_t ScheduleContext::restore(const Operation & operation) {
    const std::vector<uint8_t> & slot = slots_[operation.slot];
    if (operation.kind == Kind::RESTORE_WHOLE) {
        return static_cast<int64_t>(llama_state_set_data(context_.get(), slot.data(), slot.size()));
    }
    return static_cast<int64_t>(
        llama_state_seq_set_data_ext(context_.get(), slot.data(), slot.size(), operation.sequence, operation.flags));
}

int64_t ScheduleContext::apply(const Operation & operation) {
    llama_memory_t memory = llama_get_memory(context_.get());
    switch (operation.kind) {
        case Kind::DECODE:
            return decode(operation);
        case Kind::REMOVE:
            return llama_memory_seq_rm(memory, operation.sequence, operation.first, operation.last) ? 1 : 0;
        case Kind::COPY:
            llama_memory_seq_cp(memory, operation.sequence, operation.other, operation.first, operation.last);
            return 0;
        case Kind::KEEP:
            llama_memory_seq_keep(memory, operation.sequence);
            return 0;
        case Kind::ADD:
            llama_memory_seq_add(memory, operation.sequence, operation.first, operation.last, operation.amount);
            return 0;
        case Kind::DIVIDE:
            llama_memory_seq_div(memory, operation.sequence, operation.first, operation.last, operation.amount);
            return 0;
        case Kind::CLEAR:
            llama_memory_clear(memory, operation.amount != 0);
            return 0;
        case Kind::SAVE:
        case Kind::SAVE_WHOLE:
            return save(operation);
        case Kind::RESTORE:
        case Kind::RESTORE_WHOLE:
            return restore(operation);
    }
    return -1;
}

}  // namespace schedule
