// The quantized cache formats of ggml (q8_0, q5_0, q4_0) as yardsticks: rows are rounded to what such a cache would
// give back and stay half-precision rows, so that codecs can be compared under the same sink, tail and attention. For
// evaluation; no memory is saved. Sits on format and kernels; knows nothing of caches or engines.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "base/half.hpp"
#include "base/result.hpp"
#include "codec/tile_codec.hpp"

namespace kvarn {

// A block is 32 neighbouring channels of one token with one half-precision step d; a value is code * d.
//   q8_0  d = largest magnitude / 127               code = round half away from zero (x / d)    -127..127
//   q5_0  d = value of largest magnitude / -16      code = floor(x / d + 16.5), at most 31, - 16
//   q4_0  d = value of largest magnitude / -8       code = floor(x / d + 8.5), at most 15, - 8
// Codes come from the single-precision step, values from the stored one.
enum class BaselineFormat : std::uint8_t { kNone, kQ8_0, kQ5_0, kQ4_0 };

inline constexpr std::uint32_t kBaselineBlock = 32;

// The format of a name ("q8_0", "q5_0", "q4_0").
std::optional<BaselineFormat> baseline_format(std::string_view name);

// Bits of a code; kNone is half precision.
constexpr int baseline_code_bits(BaselineFormat format) {
  switch (format) {
    case BaselineFormat::kQ8_0:
      return 8;
    case BaselineFormat::kQ5_0:
      return 5;
    case BaselineFormat::kQ4_0:
      return 4;
    case BaselineFormat::kNone:
      break;
  }
  return 16;
}

// Codes and steps of one format: 8.5, 5.5 or 4.5; 16 for kNone.
constexpr double baseline_bits_per_value(BaselineFormat format) {
  return baseline_code_bits(format) + (format == BaselineFormat::kNone ? 0.0 : 16.0 / kBaselineBlock);
}

// Channels that llama.cpp (0.5.0) rotates together before it writes to a quantized cache; 0: it does not rotate. Heads
// of a multiple of 64 channels are rotated: V in blocks of 64, K in the largest power of two that divides the head.
constexpr std::uint32_t baseline_rotation(Side side, std::uint32_t dim) {
  if (dim == 0 || dim % 64 != 0) return 0;
  std::uint32_t channels = 64;
  while (side == Side::kKey && dim % (2 * channels) == 0) channels *= 2;
  return channels;
}

// Rounds `count` finite values, a multiple of kBaselineBlock, in place.
void round_to_baseline(BaselineFormat format, float* values, std::size_t count);

// Rounds the 16 tokens of one KV head in place (format/exact_block.hpp): rotated, rounded, rotated back, to half
// precision. dim is a multiple of kBaselineBlock. scratch: 64-byte aligned, [2, 16, dim] floats; that of encode_tile is
// enough. kNonFinite: a NaN or infinity, nothing is changed.
Status round_head_block(BaselineFormat format, Side side, std::uint32_t dim, std::byte* scratch, HalfBits* head_block);

}  // namespace kvarn
