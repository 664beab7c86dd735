// A llama.cpp context that carries out the operations of a schedule and shows what its attention nodes saw: queries, mask, output,
// and the rows of the cache as they were at that moment. Uses the public API only: nodes are watched through the host's evaluation
// callback, rows are read through the tensors that the node itself names.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ggml-backend.h"
#include "llama.h"
#include "schedule_operation.hpp"

namespace schedule {

// One FLASH_ATTN_EXT node after it was computed. Slices are the streams it covers.
struct AttentionNode {
    int layer = 0;
    uint32_t first_stream = 0;
    uint32_t slices = 0;
    uint32_t queries = 0;  // per slice
    uint32_t cells = 0;    // per slice: the first of the stream's
    uint32_t cells_per_stream = 0;
    uint32_t heads = 0;
    uint32_t kv_heads = 0;
    uint32_t dim_k = 0;
    uint32_t dim_v = 0;
    float scale = 1.0f;
    float soft_cap = 0.0f;
    std::vector<float> q;           // [slices, queries, heads, dim_k]
    std::vector<float> out;         // [slices, queries, heads, dim_v]
    std::vector<ggml_fp16_t> mask;  // [slices, queries, cells]
    std::vector<uint8_t> seen;      // [slices, cells]: some query sees the cell
    std::vector<ggml_fp16_t> k;     // [slices, cells, kv_heads * dim_k]; zeros where no query looks
    std::vector<ggml_fp16_t> v;     // [slices, cells, kv_heads * dim_v]
    std::vector<int64_t> written;   // cells that this micro-batch wrote, over all streams

    bool sees(uint32_t slice, uint32_t query, uint32_t cell) const;
};

struct ContextSettings {
    uint32_t context = 1024;  // cells of all streams together
    uint32_t ubatch = 37;
    int threads = 1;
    bool unified = true;
    bool full_window = false;  // swa_full
    bool on_plugin = false;
};

class ScheduleContext {
  public:
    // Null if the host refuses; its log says why. Without on_plugin the model sees no device but the CPU.
    static std::unique_ptr<ScheduleContext> create(const std::string & model_file, const ContextSettings & settings);

    // What the call returned, as a number: a decode's status, the bytes of a state, 1 or 0 for seq_rm.
    int64_t apply(const Operation & operation);

    // The last decode's logits, one row of n_vocab() an output token; empty if it failed.
    const std::vector<float> & logits() const { return logits_; }
    int32_t n_vocab() const;
    // Watches the attention nodes of decodes from now on, or stops.
    void watch(bool on);
    std::vector<AttentionNode> & nodes() { return nodes_; }

    llama_pos first_position(llama_seq_id sequence) const;
    llama_pos last_position(llama_seq_id sequence) const;
    bool can_shift() const;

  private:
    ScheduleContext() = default;
    static bool on_node(ggml_tensor * node, bool ask, void * self);
    bool wants(const ggml_tensor * node);
    void record(const ggml_tensor * node);
    int64_t decode(const Operation & operation);
    int64_t save(const Operation & operation);
    int64_t restore(const Operation & operation);

    std::unique_ptr<llama_model, decltype(&llama_model_free)> model_{nullptr, llama_model_free};
    std::unique_ptr<llama_context, decltype(&llama_free)> context_{nullptr, llama_free};
    std::vector<std::vector<uint8_t>> slots_;
    std::vector<float> logits_;
    std::vector<AttentionNode> nodes_;
    const ggml_tensor * write_indices_ = nullptr;
    bool watching_ = false;
};

}  // namespace schedule
