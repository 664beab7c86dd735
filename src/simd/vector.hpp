// The vector vocabulary: one name per operation, written over the compiler's vector extensions, so that one source
// serves every instruction set. Included by the kernel translation units only, each compiled with the flags of its own
// instruction set; everything has internal linkage, so that no function compiled for one of them can be called from
// another. Must not use inline functions of the standard library, which would leak as weak symbols.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#endif

#define KVARN_INLINE inline __attribute__((always_inline))

namespace kvarn {
namespace {

#if defined(__AVX512F__)
constexpr int kWidth = 16;  // floats in one vector
#elif defined(__AVX2__)
constexpr int kWidth = 8;
#else
constexpr int kWidth = 4;
#endif

using F32 = float __attribute__((vector_size(kWidth * 4)));
using I32 = std::int32_t __attribute__((vector_size(kWidth * 4)));
using U32 = std::uint32_t __attribute__((vector_size(kWidth * 4)));
using U16 = std::uint16_t __attribute__((vector_size(kWidth * 2)));
using U8 = std::uint8_t __attribute__((vector_size(kWidth)));
using I8 = std::int8_t __attribute__((vector_size(kWidth)));

// Sums over a row run in 16 partial sums on every instruction set; this many vectors hold them.
constexpr int kPartials = 16;
constexpr int kPartialVectors = kPartials / kWidth;

// A number as a type, so that loops over registers are unrolled whatever the optimizer thinks of them.
template <int I>
struct Index {
  static constexpr int value = I;
};

template <int Count, int From = 0, class Body>
KVARN_INLINE void unroll(Body&& body) {
  if constexpr (From < Count) {
    body(Index<From>{});
    unroll<Count, From + 1>(body);
  }
}

// Calls body(Index<count>) for 1 <= count <= Most.
template <int Most, class Body>
KVARN_INLINE void with_count(std::size_t count, Body&& body) {
  if constexpr (Most > 0) {
    if (count == Most) return body(Index<Most>{});
    with_count<Most - 1>(count, body);
  }
}

// Memory at any alignment and of any declared type.
template <class Vector>
KVARN_INLINE Vector load_as(const void* from) {
  Vector vector;
  __builtin_memcpy(&vector, from, sizeof vector);
  return vector;
}
KVARN_INLINE F32 load(const float* from) { return load_as<F32>(from); }
template <class Vector>
KVARN_INLINE void store(Vector vector, void* to) {
  __builtin_memcpy(to, &vector, sizeof vector);
}

KVARN_INLINE F32 splat(float value) { return value - F32{}; }
KVARN_INLINE U32 splat_bits(std::uint32_t value) { return value - U32{}; }
KVARN_INLINE U32 bits_of(F32 vector) { return reinterpret_cast<U32>(vector); }
KVARN_INLINE F32 float_of(U32 bits) { return reinterpret_cast<F32>(bits); }
KVARN_INLINE F32 to_float(I32 numbers) { return __builtin_convertvector(numbers, F32); }
KVARN_INLINE F32 to_float(U32 numbers) {  // numbers below 2^31
  return __builtin_convertvector(reinterpret_cast<I32>(numbers), F32);
}

// A NaN in `a` gives `b`. The instruction of x86 means exactly this comparison; compilers do not see it.
#if defined(__AVX512F__)
KVARN_INLINE F32 max(F32 a, F32 b) { return _mm512_maskz_max_ps(0xFFFF, a, b); }
KVARN_INLINE F32 min(F32 a, F32 b) { return _mm512_maskz_min_ps(0xFFFF, a, b); }
#elif defined(__AVX2__)
KVARN_INLINE F32 max(F32 a, F32 b) { return _mm256_max_ps(a, b); }
KVARN_INLINE F32 min(F32 a, F32 b) { return _mm256_min_ps(a, b); }
#elif defined(__SSE2__)
KVARN_INLINE F32 max(F32 a, F32 b) { return _mm_max_ps(a, b); }
KVARN_INLINE F32 min(F32 a, F32 b) { return _mm_min_ps(a, b); }
#else
KVARN_INLINE F32 max(F32 a, F32 b) { return a > b ? a : b; }
KVARN_INLINE F32 min(F32 a, F32 b) { return a < b ? a : b; }
#endif

// kWidth bytes as numbers. GCC takes a conversion of whole vectors apart, byte by byte.
#if defined(__AVX512F__)
KVARN_INLINE U32 load_bytes(const void* from) {
  return reinterpret_cast<U32>(_mm512_maskz_cvtepu8_epi32(0xFFFF, load_as<__m128i>(from)));
}
KVARN_INLINE I32 load_signed_bytes(const void* from) {
  return reinterpret_cast<I32>(_mm512_maskz_cvtepi8_epi32(0xFFFF, load_as<__m128i>(from)));
}
#elif defined(__AVX2__)
KVARN_INLINE U32 load_bytes(const void* from) {
  return reinterpret_cast<U32>(_mm256_cvtepu8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(from))));
}
KVARN_INLINE I32 load_signed_bytes(const void* from) {
  return reinterpret_cast<I32>(_mm256_cvtepi8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(from))));
}
#elif defined(__SSE2__)
KVARN_INLINE U32 load_bytes(const void* from) {
  const __m128i zero = _mm_setzero_si128();
  const __m128i bytes = _mm_cvtsi32_si128(load_as<int>(from));
  return reinterpret_cast<U32>(_mm_unpacklo_epi16(_mm_unpacklo_epi8(bytes, zero), zero));
}
KVARN_INLINE I32 load_signed_bytes(const void* from) { return reinterpret_cast<I32>(load_bytes(from) << 24) >> 24; }
#elif defined(__ARM_NEON) && defined(__aarch64__)
KVARN_INLINE U32 load_bytes(const void* from) {
  const uint8x8_t bytes = vreinterpret_u8_u32(vdup_n_u32(load_as<std::uint32_t>(from)));
  return reinterpret_cast<U32>(vmovl_u16(vget_low_u16(vmovl_u8(bytes))));
}
KVARN_INLINE I32 load_signed_bytes(const void* from) {
  const int8x8_t bytes = vreinterpret_s8_u32(vdup_n_u32(load_as<std::uint32_t>(from)));
  return reinterpret_cast<I32>(vmovl_s16(vget_low_s16(vmovl_s8(bytes))));
}
#else
KVARN_INLINE U32 load_bytes(const void* from) { return __builtin_convertvector(load_as<U8>(from), U32); }
KVARN_INLINE I32 load_signed_bytes(const void* from) { return __builtin_convertvector(load_as<I8>(from), I32); }
#endif

// Stores the lowest byte of every word, kWidth bytes.
#if defined(__AVX512F__)
KVARN_INLINE void store_low_bytes(U32 words, void* to) {
  store(_mm512_maskz_cvtepi32_epi8(0xFFFF, reinterpret_cast<__m512i>(words)), to);
}
#elif defined(__AVX2__)
KVARN_INLINE void store_low_bytes(U32 words, void* to) {
  const __m256i low_bytes = _mm256_set1_epi32(0x0C080400);
  const __m256i packed = _mm256_shuffle_epi8(reinterpret_cast<__m256i>(words), low_bytes);
  store(_mm_unpacklo_epi32(_mm256_castsi256_si128(packed), _mm256_extracti128_si256(packed, 1))[0], to);
}
#elif defined(__SSE2__)
KVARN_INLINE void store_low_bytes(U32 words, void* to) {
  const __m128i bytes = reinterpret_cast<__m128i>(words & 0xFFu);
  const __m128i halves = _mm_packs_epi32(bytes, bytes);
  store(_mm_cvtsi128_si32(_mm_packus_epi16(halves, halves)), to);
}
#else
KVARN_INLINE void store_low_bytes(U32 words, void* to) { store(__builtin_convertvector(words, U8), to); }
#endif
KVARN_INLINE F32 select(I32 mask, F32 a, F32 b) { return mask ? a : b; }

// Lane i gets lane i ^ Distance.
template <int Distance, std::size_t... I>
KVARN_INLINE F32 swap_lanes(F32 v, std::index_sequence<I...>) {
  return __builtin_shufflevector(v, v, (static_cast<int>(I) ^ Distance)...);
}

// One step of a transposition by exchanging squares of `Distance` lanes between the rows a and b = row a + Distance.
template <int Distance, std::size_t... I>
KVARN_INLINE void exchange_squares(F32& a, F32& b, std::index_sequence<I...>) {
  const F32 first = __builtin_shufflevector(
      a, b, ((static_cast<int>(I) & Distance) ? kWidth + (static_cast<int>(I) ^ Distance) : static_cast<int>(I))...);
  const F32 second = __builtin_shufflevector(
      a, b, ((static_cast<int>(I) & Distance) ? kWidth + static_cast<int>(I) : (static_cast<int>(I) ^ Distance))...);
  a = first;
  b = second;
}

template <int Distance = 1>
KVARN_INLINE void transpose_square(F32 (&rows)[kWidth]) {
  if constexpr (Distance < kWidth) {
    unroll<kWidth>([&](auto i) {
      constexpr int row = decltype(i)::value;
      if constexpr ((row & Distance) == 0) {
        exchange_squares<Distance>(rows[row], rows[row + Distance], std::make_index_sequence<kWidth>{});
      }
    });
    transpose_square<Distance * 2>(rows);
  }
}

// All lanes joined by halving: lane i with lane i + half. The first lane of the result is what counts.
template <int Half, class Join>
KVARN_INLINE F32 halve(F32 v, Join&& join) {
  if constexpr (Half == 0) {
    return v;
  } else {
    return halve<Half / 2>(join(v, swap_lanes<Half>(v, std::make_index_sequence<kWidth>{})), join);
  }
}

// 16 partial results joined to one vector: partial[i] with partial[i + half].
template <class Join>
KVARN_INLINE F32 join_vectors(const F32 (&vectors)[kPartialVectors], Join&& join) {
  if constexpr (kPartialVectors == 4) return join(join(vectors[0], vectors[2]), join(vectors[1], vectors[3]));
  if constexpr (kPartialVectors == 2) return join(vectors[0], vectors[1]);
  return vectors[0];
}

// The sum of 16 partial sums: halved four times, partial[i] += partial[i + half].
KVARN_INLINE float sum_partials(const F32 (&vectors)[kPartialVectors]) {
  const auto add = [](F32 a, F32 b) { return a + b; };
  return halve<kWidth / 2>(join_vectors(vectors, add), add)[0];
}

// Joins the halves of each group of 2 * Half lanes; the groups of `a` come first in the result, then those of `b`.
template <int Half, class Join, std::size_t... I>
KVARN_INLINE F32 join_halves(F32 a, F32 b, Join&& join, std::index_sequence<I...>) {
  constexpr int kGroups = kWidth / (2 * Half);
  const F32 low =
      __builtin_shufflevector(a, b,
                              (static_cast<int>(I) / Half / kGroups * kWidth +
                               static_cast<int>(I) / Half % kGroups * 2 * Half + static_cast<int>(I) % Half)...);
  const F32 high =
      __builtin_shufflevector(a, b,
                              (static_cast<int>(I) / Half / kGroups * kWidth +
                               static_cast<int>(I) / Half % kGroups * 2 * Half + static_cast<int>(I) % Half + Half)...);
  return join(low, high);
}

// Four vectors, each joined by halving as `halve` does it. The k-th result is in lane k * kFourStep.
constexpr int kFourStep = kWidth / 4;
template <class Join>
KVARN_INLINE F32 halve_four(const F32 (&v)[4], Join&& join) {
  constexpr auto kLanes = std::make_index_sequence<kWidth>{};
  const F32 first = join_halves<kWidth / 2>(v[0], v[1], join, kLanes);
  const F32 second = join_halves<kWidth / 2>(v[2], v[3], join, kLanes);
  return halve<kWidth / 8>(join_halves<kWidth / 4>(first, second, join, kLanes), join);
}

KVARN_INLINE float largest_lane(F32 v) {
  return halve<kWidth / 2>(v, [](F32 a, F32 b) { return max(a, b); })[0];
}
KVARN_INLINE float smallest_lane(F32 v) {
  return halve<kWidth / 2>(v, [](F32 a, F32 b) { return min(a, b); })[0];
}

}  // namespace
}  // namespace kvarn
