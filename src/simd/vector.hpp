// The vector vocabulary: one name per operation, written over the compiler's vector extensions, so that one source
// serves every instruction set. Included by the kernel translation units only, each compiled with the flags of its own
// instruction set; everything has internal linkage, so that no function compiled for one of them can be called from
// another. Must not use inline functions of the standard library, which would leak as weak symbols.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

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
KVARN_INLINE F32 to_float(U32 numbers) {  // numbers below 2^31
  return __builtin_convertvector(reinterpret_cast<I32>(numbers), F32);
}

// A NaN in `a` gives `b`.
KVARN_INLINE F32 max(F32 a, F32 b) { return a > b ? a : b; }
KVARN_INLINE F32 min(F32 a, F32 b) { return a < b ? a : b; }
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

// The sum of 16 partial sums: halved four times, partial[i] += partial[i + half].
KVARN_INLINE float sum_partials(const F32 (&vectors)[kPartialVectors]) {
  float partial[kPartials];
  for (int i = 0; i < kPartialVectors; ++i) store(vectors[i], partial + i * kWidth);
  for (int half = kPartials / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) partial[i] += partial[i + half];
  }
  return partial[0];
}

}  // namespace
}  // namespace kvarn
