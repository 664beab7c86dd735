// Rows of an attention node, how far they are from each other, and attention over them in double precision.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "schedule_context.hpp"

namespace schedule {

struct Rows {
    std::span<const ggml_fp16_t> k;  // [kv_heads, dim_k]
    std::span<const ggml_fp16_t> v;  // [kv_heads, dim_v]
};

Rows rows_of(const AttentionNode & node, uint32_t slice, uint32_t cell);
bool same(const Rows & one, const Rows & other);
uint64_t hash(const Rows & rows);

// Squared distance of a row from the true one, of the true one's square.
double distance(std::span<const ggml_fp16_t> truth, std::span<const ggml_fp16_t> row);

// Of the angle between a row and the true one; 0 for a row of zeros.
double cosine(std::span<const ggml_fp16_t> truth, std::span<const ggml_fp16_t> row);

// Layer, stream and cell in words.
std::string place(const AttentionNode & node, uint32_t slice, uint32_t cell);

// What one query head gets from the rows that it sees.
struct ReferenceOutput {
    std::vector<double> values;  // [dim_v]
    double v_square = 0.0;       // mean square of the values of the rows that it sees
    bool sees_something = false;
};
ReferenceOutput reference(const AttentionNode & node, uint32_t slice, uint32_t query, uint32_t head);

}  // namespace schedule
