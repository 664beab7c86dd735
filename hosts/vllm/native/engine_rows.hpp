// Rows of a batch as the engine has them, in any of its types, and as the library takes them: keys and values as
// halves, queries and outputs as floats.
#pragma once

#include <cstddef>

#include "base/half.hpp"

namespace kvarn_vllm {

enum class RowType { kHalf, kBfloat16, kFloat };

constexpr std::size_t value_bytes(RowType type) { return type == RowType::kFloat ? 4 : 2; }

// [tokens, heads, channels] in the engine's memory; strides count values.
struct EngineRows {
  std::byte* data;
  std::size_t token_stride;
  std::size_t head_stride;
  RowType type;
  std::byte* at(std::size_t token, std::size_t head) const {
    return data + (token * token_stride + head * head_stride) * value_bytes(type);
  }
};

// One row of `count` channels, a multiple of 16. Values that no half can hold become the nearest finite one, a NaN
// becomes 0; returns how many there were.
std::size_t to_halves(RowType type, const std::byte* from, std::size_t count, kvarn::HalfBits* to);

void to_floats(RowType type, const std::byte* from, std::size_t count, float* to);
void from_floats(const float* from, std::size_t count, RowType type, std::byte* to);

}  // namespace kvarn_vllm
