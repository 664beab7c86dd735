// Fields of one byte (format/byte_fields.hpp) as single-precision numbers.
#pragma once

#include "format/byte_fields.hpp"
#include "kernels/kernel_table.hpp"
#include "simd/vector.hpp"

namespace kvarn {
namespace {

KVARN_INLINE F32 float_of_fields(U32 fields, int shift, std::uint32_t least) {
  return float_of((fields << shift) + least);
}

void bytes_to_scales(const std::uint8_t* bytes, std::size_t count, const ByteFieldLaw& law, float* scales) {
  const int shift = law.shift;
  const std::uint32_t least = law.least;
  for (std::size_t i = 0; i < count; i += kWidth) {
    store(float_of_fields(load_bytes(bytes + i), shift, least), scales + i);
  }
}

void middles_to_zeros(const std::uint8_t* middles, std::size_t count, const MiddleLaw& law, const float* scales,
                      float* zeros) {
  const MiddleLaw by = law;
  for (std::size_t i = 0; i < count; i += kWidth) {
    const U32 middle = load_bytes(middles + i);
    const F32 distance = float_of_fields(middle & kLargestMiddle, by.size.shift, by.size.least) - splat(1.0f);
    const F32 steps = float_of(bits_of(distance * splat(by.unit)) | (middle & kMiddleSign) << 24);
    store(load(scales + i) * (steps - splat(by.half_range)), zeros + i);
  }
}

}  // namespace
}  // namespace kvarn
