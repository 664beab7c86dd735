// IEEE 754 half precision as bits: exact scalar conversions, round to nearest even.
// Every instruction set's vector conversion must agree with these bit for bit (NaN payloads apart).
#pragma once

#include <bit>
#include <cstdint>

namespace kvarn {

using HalfBits = std::uint16_t;

inline constexpr float kHalfMax = 65504.0f;

constexpr float half_to_float(HalfBits half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000u) << 16;
  const std::uint32_t exponent = (half >> 10) & 0x1Fu;
  std::uint32_t mantissa = half & 0x3FFu;
  if (exponent == 0x1F) return std::bit_cast<float>(sign | 0x7F800000u | (mantissa << 13));
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  if (mantissa == 0) return std::bit_cast<float>(sign);
  const int shift = std::countl_zero(mantissa) - 21;  // bring the leading one to bit 10
  mantissa = (mantissa << shift) & 0x3FFu;
  return std::bit_cast<float>(sign | (static_cast<std::uint32_t>(113 - shift) << 23) | (mantissa << 13));
}

constexpr HalfBits float_to_half(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude >= 0x7F800000u) {  // infinity or NaN; a NaN keeps its top payload bits and stays quiet
    const std::uint32_t payload = magnitude > 0x7F800000u ? 0x200u | ((magnitude >> 13) & 0x3FFu) : 0u;
    return static_cast<HalfBits>(sign | 0x7C00u | payload);
  }
  if (magnitude >= 0x477FF000u) return static_cast<HalfBits>(sign | 0x7C00u);  // rounds beyond 65504
  if (magnitude < 0x33000001u) return static_cast<HalfBits>(sign);             // rounds to zero
  if (magnitude < 0x38800000u) {                                               // subnormal half
    const std::uint32_t exponent = magnitude >> 23;
    const std::uint32_t mantissa = (magnitude & 0x7FFFFFu) | 0x800000u;
    const std::uint32_t shift = 126u - exponent;  // 14..24 bits fall away
    const std::uint32_t kept = mantissa >> shift;
    const std::uint32_t rest = mantissa & ((1u << shift) - 1u);
    const std::uint32_t halfway = 1u << (shift - 1);
    const std::uint32_t up = (rest > halfway || (rest == halfway && (kept & 1u))) ? 1u : 0u;
    return static_cast<HalfBits>(sign | (kept + up));
  }
  const std::uint32_t rebased = magnitude - 0x38000000u;
  const std::uint32_t rounded = rebased + 0xFFFu + ((rebased >> 13) & 1u);
  return static_cast<HalfBits>(sign | (rounded >> 13));
}

}  // namespace kvarn
