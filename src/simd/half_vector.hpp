// Half precision in vectors, the one part of the vocabulary that each instruction set says in its own words. All agree
// with base/half.hpp bit for bit (NaN payloads apart).
#pragma once

#include "base/half.hpp"
#include "simd/vector.hpp"

#if defined(__AVX512F__) || defined(__F16C__)
#include <immintrin.h>
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace kvarn {
namespace {

#if defined(__AVX512F__)

// The zero-masking forms with a full mask: the plain forms of GCC 12 read an undefined register and warn about it.
KVARN_INLINE F32 load_halves(const void* from) { return _mm512_maskz_cvtph_ps(0xFFFF, load_as<__m256i>(from)); }
KVARN_INLINE void store_halves(F32 values, void* to) {
  store(_mm512_maskz_cvtps_ph(0xFFFF, values, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), to);
}

#elif defined(__F16C__)

KVARN_INLINE F32 load_halves(const void* from) { return _mm256_cvtph_ps(load_as<__m128i>(from)); }
KVARN_INLINE void store_halves(F32 values, void* to) { store(_mm256_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT), to); }

#elif defined(__ARM_NEON) && defined(__aarch64__)

KVARN_INLINE F32 load_halves(const void* from) {
  return reinterpret_cast<F32>(vcvt_f32_f16(vreinterpret_f16_u16(load_as<uint16x4_t>(from))));
}
KVARN_INLINE void store_halves(F32 values, void* to) { store(vcvt_f16_f32(reinterpret_cast<float32x4_t>(values)), to); }

#else

// Integer arithmetic on the fields; a subnormal half is an integer times 2^-24.
KVARN_INLINE F32 load_halves(const void* from) {
  const U32 half = __builtin_convertvector(load_as<U16>(from), U32);
  const U32 sign = (half & 0x8000u) << 16;
  const U32 magnitude = half & 0x7FFFu;
  const U32 normal = (magnitude << 13) + 0x38000000u;
  const U32 special = (magnitude << 13) | 0x7F800000u;
  const U32 subnormal = bits_of(to_float(magnitude) * 0x1p-24f);
  const U32 finite = magnitude < 0x400u ? subnormal : normal;
  return float_of((magnitude >= 0x7C00u ? special : finite) | sign);
}

// Adding 0.5 to a magnitude below 2^-14 rounds it to a multiple of 2^-24, the unit of subnormal halves.
KVARN_INLINE void store_halves(F32 values, void* to) {
  const U32 bits = bits_of(values);
  const U32 magnitude = bits & 0x7FFFFFFFu;
  const U32 subnormal = bits_of(float_of(magnitude) + 0.5f) - 0x3F000000u;
  const U32 rebased = magnitude - 0x38000000u;
  const U32 normal = (rebased + 0xFFFu + ((rebased >> 13) & 1u)) >> 13;
  const U32 finite = magnitude < 0x38800000u ? subnormal : normal;
  const U32 beyond = magnitude > 0x7F800000u ? splat_bits(0x7E00u) : splat_bits(0x7C00u);
  const U32 half = (magnitude >= 0x477FF000u ? beyond : finite) | ((bits >> 16) & 0x8000u);
  store(__builtin_convertvector(half, U16), to);
}

#endif

}  // namespace
}  // namespace kvarn
