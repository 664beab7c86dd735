// The fields of a record of version 2, one byte each: what a byte means and which byte is nearest.
// docs/format/tile_record.md is the contract. Knows numbers only.
//
// A scale is a number without sign, subnormals or zero: exponent above, fraction below. A middle is a sign and
// a distance in steps from the middle code on, finest near zero.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

namespace kvarn {

// byte = exponent << fraction_bits | fraction: 2^(least_exponent + exponent) * (1 + fraction / 2^fraction_bits).
struct ByteScale {
  int fraction_bits;
  int least_exponent;
};

// Lanes: 2^-16 to 2^15 times 1.875. They carry the size of the whole tile.
inline constexpr ByteScale kLaneByteScale = {3, -16};

// Rows: steps of 8 octaves, 32 each. Lanes have a root mean square of one, so that a row's step is a few times 2^-bits.
constexpr ByteScale row_byte_scale(std::uint32_t bits) { return {5, -2 - static_cast<int>(bits)}; }

// The bits of the least scale: those of any other are (byte << (23 - fraction_bits)) more.
constexpr std::uint32_t least_scale_bits(const ByteScale& scale) {
  return static_cast<std::uint32_t>(127 + scale.least_exponent) << 23;
}

constexpr float scale_of_byte(const ByteScale& scale, std::uint8_t byte) {
  return std::bit_cast<float>((std::uint32_t{byte} << (23 - scale.fraction_bits)) + least_scale_bits(scale));
}

// The byte of the nearest scale, a tie goes to the even byte; the first or the last byte beyond the ends. wanted > 0.
constexpr std::uint8_t nearest_scale(const ByteScale& scale, float wanted) {
  const int shift = 23 - scale.fraction_bits;
  const auto bits = std::bit_cast<std::uint32_t>(wanted);
  const std::uint32_t rounded = (bits + (1u << (shift - 1)) - 1u + (bits >> shift & 1u)) >> shift;
  const auto above = static_cast<std::int64_t>(rounded) - (least_scale_bits(scale) >> shift);
  return static_cast<std::uint8_t>(std::clamp<std::int64_t>(above, 0, 255));
}

// Middles: distances grow like those of the mu-law (ITU-T G.711), which are a scale of seven bits less its least value.
inline constexpr ByteScale kMiddleLaw = {4, 0};
inline constexpr std::uint8_t kMiddleSign = 0x80;
inline constexpr std::uint8_t kLargestMiddle = 0x7F;

// What a distance of one is, in steps: the largest, 247, is about as many steps as there are codes, and 15 at the
// least.
constexpr float middle_unit(std::uint32_t bits) { return static_cast<float>(1u << std::max(bits, 4u)) / 256.0f; }

constexpr float steps_of_middle(std::uint32_t bits, std::uint8_t middle) {
  const float steps = (scale_of_byte(kMiddleLaw, middle & kLargestMiddle) - 1.0f) * middle_unit(bits);
  return (middle & kMiddleSign) != 0 ? -steps : steps;
}

// The zero of a row: what code 0 stands for, so that the middle code is the middle's steps from 0. Exact.
constexpr float zero_of_middle(std::uint32_t bits, float step, std::uint8_t middle) {
  const float half_range = static_cast<float>((1u << bits) - 1u) * 0.5f;
  return step * (steps_of_middle(bits, middle) - half_range);
}

// The least step whose middles reach as far as `middle`.
inline float least_step(std::uint32_t bits, float middle) {
  return std::fabs(middle) / steps_of_middle(bits, kLargestMiddle);
}

inline std::uint8_t nearest_middle(std::uint32_t bits, float step, float middle) {
  const float distance = std::fabs(middle) / (step * middle_unit(bits));
  const std::uint8_t size = std::min(nearest_scale(kMiddleLaw, distance + 1.0f), kLargestMiddle);
  return static_cast<std::uint8_t>(size | (middle < 0.0f ? kMiddleSign : 0));
}

}  // namespace kvarn
