// Sums of products of unsigned codes and signed 8-bit digits, four neighbouring rows of every lane at a time: one or a
// few instructions, each instruction set in its own words. Integers throughout, so all of them agree exactly.
#pragma once

#include "simd/vector.hpp"

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace kvarn {
namespace {

// Every byte's magnitude; that of -128, which only values that are not finite give, is 128.
KVARN_INLINE U32 magnitudes(U32 words) {
  using Bytes = std::uint8_t __attribute__((vector_size(kWidth * 4)));
  using SignedBytes = std::int8_t __attribute__((vector_size(kWidth * 4)));
  const Bytes bytes = reinterpret_cast<Bytes>(words);
  return reinterpret_cast<U32>(reinterpret_cast<SignedBytes>(words) < 0 ? -bytes : bytes);
}

// The numbers of four vectors, in -128..127, as bytes in their order.
KVARN_INLINE U32 pack_bytes(const I32 (&numbers)[4]) {
#if defined(__AVX512BW__)
  const auto at = [&](int i) { return reinterpret_cast<__m512i>(numbers[i]); };
  const __m512i bytes = _mm512_packs_epi16(_mm512_packs_epi32(at(0), at(1)), _mm512_packs_epi32(at(2), at(3)));
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return reinterpret_cast<U32>(_mm512_maskz_permutexvar_epi32(0xFFFF, order, bytes));
#elif defined(__AVX2__)
  const auto at = [&](int i) { return reinterpret_cast<__m256i>(numbers[i]); };
  const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(at(0), at(1)), _mm256_packs_epi32(at(2), at(3)));
  return reinterpret_cast<U32>(_mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
#elif defined(__SSE2__)
  const auto at = [&](int i) { return reinterpret_cast<__m128i>(numbers[i]); };
  return reinterpret_cast<U32>(_mm_packs_epi16(_mm_packs_epi32(at(0), at(1)), _mm_packs_epi32(at(2), at(3))));
#else
  U32 packed;
  unroll<4>([&](auto i) {
    const I8 bytes = __builtin_convertvector(numbers[i.value], I8);
    __builtin_memcpy(reinterpret_cast<char*>(&packed) + i.value * kWidth, &bytes, kWidth);
  });
  return packed;
#endif
}

// total + the four products of every word: byte j of a word is row j of that lane. digits lie in -127..127, codes below
// 2^Bits.
#if defined(__AVX512VNNI__)

template <int Bits>
KVARN_INLINE I32 add_products(I32 total, U32 codes, U32 digits) {
  return reinterpret_cast<I32>(_mm512_dpbusd_epi32(reinterpret_cast<__m512i>(total), reinterpret_cast<__m512i>(codes),
                                                   reinterpret_cast<__m512i>(digits)));
}

#elif defined(__ARM_FEATURE_MATMUL_INT8) && defined(__aarch64__)

template <int Bits>
KVARN_INLINE I32 add_products(I32 total, U32 codes, U32 digits) {
  return reinterpret_cast<I32>(vusdotq_s32(reinterpret_cast<int32x4_t>(total), reinterpret_cast<uint8x16_t>(codes),
                                           reinterpret_cast<int8x16_t>(digits)));
}

#elif defined(__ARM_NEON) && defined(__aarch64__)

KVARN_INLINE int32x4_t add_signed_products(int32x4_t total, int8x16_t codes, int8x16_t digits) {
#if defined(__ARM_FEATURE_DOTPROD)
  return vdotq_s32(total, codes, digits);
#else  // pairs of products fit in 16 bits: 2 * 128 * 127
  const int16x8_t low = vmull_s8(vget_low_s8(codes), vget_low_s8(digits));
  const int16x8_t high = vmull_high_s8(codes, digits);
  return vpadalq_s16(total, vpaddq_s16(low, high));
#endif
}

// Codes of up to 7 bits are signed numbers as well; of 8 bits: code * d = (code - 128) * d + 64 * d + 64 * d.
template <int Bits>
KVARN_INLINE I32 add_products(I32 total, U32 codes, U32 digits) {
  const int8x16_t factors = reinterpret_cast<int8x16_t>(digits);
  int32x4_t sum = reinterpret_cast<int32x4_t>(total);
  if constexpr (Bits < 8) {
    sum = add_signed_products(sum, reinterpret_cast<int8x16_t>(codes), factors);
  } else {
    sum = add_signed_products(sum, reinterpret_cast<int8x16_t>(codes ^ 0x80808080u), factors);
    sum = add_signed_products(sum, vdupq_n_s8(64), factors);
    sum = add_signed_products(sum, vdupq_n_s8(64), factors);
  }
  return reinterpret_cast<I32>(sum);
}

#elif defined(__SSE2__)

using I16 = std::int16_t __attribute__((vector_size(kWidth * 4)));
using U16Pairs = std::uint16_t __attribute__((vector_size(kWidth * 4)));

// Sums of neighbouring pairs of 16-bit products.
KVARN_INLINE I32 multiply_pairs(I32 a, I32 b) {
#if defined(__AVX512BW__)
  return reinterpret_cast<I32>(_mm512_madd_epi16(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
#elif defined(__AVX2__)
  return reinterpret_cast<I32>(_mm256_madd_epi16(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
#else
  return reinterpret_cast<I32>(_mm_madd_epi16(reinterpret_cast<__m128i>(a), reinterpret_cast<__m128i>(b)));
#endif
}

// By 16-bit numbers: even and odd rows apart.
template <int Bits>
KVARN_INLINE I32 add_products(I32 total, U32 codes, U32 digits) {
  const I16 signed_pairs = reinterpret_cast<I16>(digits);
  const I32 odd_digits = reinterpret_cast<I32>(signed_pairs >> 8);
  const I32 even_digits = reinterpret_cast<I32>(static_cast<I16>(signed_pairs << 8) >> 8);
  total += multiply_pairs(reinterpret_cast<I32>(codes & 0x00FF00FFu), even_digits);
  return total + multiply_pairs(reinterpret_cast<I32>(reinterpret_cast<U16Pairs>(codes) >> 8), odd_digits);
}

#else

template <int Bits>
KVARN_INLINE I32 add_products(I32 total, U32 codes, U32 digits) {
  unroll<4>([&](auto j) {
    const I32 digit = reinterpret_cast<I32>(digits << (24 - 8 * j.value)) >> 24;
    total += reinterpret_cast<I32>((codes >> (8 * j.value)) & 0xFFu) * digit;
  });
  return total;
}

#endif

// A sum of products. Where an instruction set sums in 16 bits first, that sum must be settled (added to the 32-bit
// total) before it could overflow: after every kAddsBeforeSettle additions; 0: never.
template <int Bits>
class PlainDotSum {
 public:
  static constexpr int kAddsBeforeSettle = 0;
  KVARN_INLINE void add(U32 codes, U32 digits) { total_ = add_products<Bits>(total_, codes, digits); }
  KVARN_INLINE void settle() {}
  KVARN_INLINE I32 total() const { return total_; }

 private:
  I32 total_ = {};
};

#if defined(__AVX2__) && !defined(__AVX512VNNI__)

// By bytes: pairs of products saturate at 16 bits, which codes of up to 7 bits never reach.
template <int Bits>
class DotSum {
 public:
  static constexpr int kAddsBeforeSettle = 32767 / (((1 << Bits) - 1) * 127 * 2);
  KVARN_INLINE void add(U32 codes, U32 digits) {
#if defined(__AVX512BW__)
    partial_ += reinterpret_cast<I16>(
        _mm512_maddubs_epi16(reinterpret_cast<__m512i>(codes), reinterpret_cast<__m512i>(digits)));
#else
    partial_ += reinterpret_cast<I16>(
        _mm256_maddubs_epi16(reinterpret_cast<__m256i>(codes), reinterpret_cast<__m256i>(digits)));
#endif
  }
  KVARN_INLINE void settle() {
    total_ += multiply_pairs(reinterpret_cast<I32>(partial_), reinterpret_cast<I32>(static_cast<I16>(I16{} + 1)));
    partial_ = I16{};
  }
  KVARN_INLINE I32 total() const { return total_; }

 private:
  I16 partial_ = {};
  I32 total_ = {};
};
template <>
class DotSum<8> : public PlainDotSum<8> {};

#else

template <int Bits>
class DotSum : public PlainDotSum<Bits> {};

#endif

}  // namespace
}  // namespace kvarn
