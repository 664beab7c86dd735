// The upper halves of single-precision numbers, as engines keep keys and values in: exact scalar conversions. Every
// instruction set's vector conversion must agree with these bit for bit. Knows numbers only.
#pragma once

#include <bit>
#include <cstdint>

namespace kvarn {

using Bfloat16Bits = std::uint16_t;

constexpr float bfloat16_to_float(Bfloat16Bits bits) { return std::bit_cast<float>(std::uint32_t{bits} << 16); }

// To nearest even. The value is finite and not so large that it would round to infinity.
constexpr Bfloat16Bits float_to_bfloat16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return static_cast<Bfloat16Bits>((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

}  // namespace kvarn
