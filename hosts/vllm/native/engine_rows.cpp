#include "engine_rows.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/bfloat16.hpp"
#include "kernels/kernel_table.hpp"

namespace kvarn_vllm {
namespace {

using kvarn::Bfloat16Bits;
using kvarn::HalfBits;

constexpr float kLargest = 65504.0f;

// Magnitudes, as bits, from which on a value rounds to no finite half: infinity, NaN, and what is beyond 65504.
constexpr std::uint16_t kBeyondHalf = 0x7C00;
constexpr std::uint16_t kBeyondBfloat16 = 0x4780;   // 65536; the one before is 65280
constexpr std::uint32_t kBeyondFloat = 0x477FF000;  // 65520

template <class Bits>
std::size_t count_beyond(const std::byte* from, std::size_t count, Bits beyond) {
  std::size_t found = 0;
  for (std::size_t at = 0; at < count; ++at) {
    Bits bits;
    std::memcpy(&bits, from + at * sizeof(Bits), sizeof(Bits));
    found += static_cast<Bits>(bits << 1) >> 1 >= beyond ? 1 : 0;
  }
  return found;
}

std::size_t count_beyond(RowType type, const std::byte* from, std::size_t count) {
  switch (type) {
    case RowType::kHalf:
      return count_beyond(from, count, kBeyondHalf);
    case RowType::kBfloat16:
      return count_beyond(from, count, kBeyondBfloat16);
    default:
      return count_beyond(from, count, kBeyondFloat);
  }
}

float value_at(RowType type, const std::byte* from, std::size_t at) {
  if (type == RowType::kFloat) {
    float value;
    std::memcpy(&value, from + at * sizeof(value), sizeof(value));
    return value;
  }
  std::uint16_t bits;
  std::memcpy(&bits, from + at * sizeof(bits), sizeof(bits));
  return type == RowType::kHalf ? kvarn::half_to_float(bits) : kvarn::bfloat16_to_float(bits);
}

}  // namespace

std::size_t to_halves(RowType type, const std::byte* from, std::size_t count, HalfBits* to) {
  const std::size_t beyond = count_beyond(type, from, count);
  if (beyond != 0) {
    for (std::size_t at = 0; at < count; ++at) {
      const float value = value_at(type, from, at);
      to[at] = std::isnan(value) ? HalfBits{0} : kvarn::float_to_half(std::clamp(value, -kLargest, kLargest));
    }
  } else if (type == RowType::kHalf) {
    std::memcpy(to, from, count * sizeof(HalfBits));
  } else if (type == RowType::kBfloat16) {
    (void)kvarn::kernels().bfloats_to_halves(from, count, to);
  } else {
    kvarn::kernels().floats_to_halves(reinterpret_cast<const float*>(from), count, to);
  }
  return beyond;
}

void to_floats(RowType type, const std::byte* from, std::size_t count, float* to) {
  if (type == RowType::kHalf) {
    kvarn::kernels().halves_to_floats(from, count, to);
  } else if (type == RowType::kFloat) {
    std::memcpy(to, from, count * sizeof(float));
  } else {
    for (std::size_t at = 0; at < count; ++at) to[at] = value_at(RowType::kBfloat16, from, at);
  }
}

void from_floats(const float* from, std::size_t count, RowType type, std::byte* to) {
  if (type == RowType::kHalf) {
    kvarn::kernels().floats_to_halves(from, count, reinterpret_cast<HalfBits*>(to));
  } else if (type == RowType::kFloat) {
    std::memcpy(to, from, count * sizeof(float));
  } else {
    for (std::size_t at = 0; at < count; ++at) {
      const Bfloat16Bits bits = kvarn::float_to_bfloat16(from[at]);
      std::memcpy(to + at * sizeof(bits), &bits, sizeof(bits));
    }
  }
}

}  // namespace kvarn_vllm
