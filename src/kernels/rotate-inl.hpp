// Hadamard rotation (Sylvester order, orthonormal power-of-two blocks) and transposition.
#pragma once

#include "simd/vector.hpp"

namespace kvarn {
namespace {

// One butterfly stage within vectors: the lane without the bit gets a + b, its partner a - b (written -b + a: same
// bits).
template <int Distance, std::size_t... I>
KVARN_INLINE F32 butterfly(F32 v, std::index_sequence<I...> lanes) {
  const U32 sign = {((static_cast<int>(I) & Distance) ? 0x80000000u : 0u)...};
  return float_of(bits_of(v) ^ sign) + swap_lanes<Distance>(v, lanes);
}

template <int Distance = 1>
KVARN_INLINE F32 butterflies(F32 v) {
  if constexpr (Distance < kWidth) {
    return butterflies<Distance * 2>(butterfly<Distance>(v, std::make_index_sequence<kWidth>{}));
  } else {
    return v;
  }
}

// Butterflies between Count vectors: the stages of distances 1, 2, ... Count / 2 in turn.
template <int Count, int Distance = 1>
KVARN_INLINE void cross_butterflies(F32 (&x)[Count]) {
  if constexpr (Distance < Count) {
    unroll<Count>([&](auto i) {
      constexpr int kRow = decltype(i)::value;
      if constexpr ((kRow & Distance) == 0) {
        const F32 a = x[kRow];
        const F32 b = x[kRow + Distance];
        x[kRow] = a + b;
        x[kRow + Distance] = a - b;
      }
    });
    cross_butterflies<Count, Distance * 2>(x);
  }
}

// A block of Count vectors, all of them in registers.
template <int Count>
void rotate_vectors(float* block, F32 unit) {
  F32 x[Count];
  unroll<Count>([&](auto i) { x[i.value] = butterflies(load(block + i.value * kWidth)); });
  cross_butterflies(x);
  unroll<Count>([&](auto i) { store(x[i.value] * unit, block + i.value * kWidth); });
}

void rotate_block(float* block, std::size_t size) {
  const F32 unit = splat(static_cast<float>(1.0 / __builtin_sqrt(static_cast<double>(size))));
  if (size == kWidth) return rotate_vectors<1>(block, unit);
  if (size == 2 * kWidth) return rotate_vectors<2>(block, unit);
  if (size == 4 * kWidth) return rotate_vectors<4>(block, unit);
  if (size == 8 * kWidth) return rotate_vectors<8>(block, unit);
  if (size == 16 * kWidth) return rotate_vectors<16>(block, unit);
  constexpr std::size_t kPart = 8 * kWidth;
  for (std::size_t start = 0; start < size; start += kPart) rotate_vectors<8>(block + start, splat(1.0f));
  for (std::size_t half = kPart; half < size; half *= 2) {
    const F32 factor = half * 2 == size ? unit : splat(1.0f);
    for (std::size_t start = 0; start < size; start += 2 * half) {
      for (std::size_t i = start; i < start + half; i += kWidth) {
        const F32 a = load(block + i);
        const F32 b = load(block + i + half);
        store((a + b) * factor, block + i);
        store((a - b) * factor, block + i + half);
      }
    }
  }
}

void rotate(float* rows, std::size_t count, std::size_t dim) {
  for (std::size_t row = 0; row < count; ++row) {
    float* block = rows + row * dim;
    for (std::size_t left = dim; left > 0;) {
      std::size_t size = 16;
      while (size * 2 <= left) size *= 2;
      rotate_block(block, size);
      block += size;
      left -= size;
    }
  }
}

// The stages of distances `distance`, ... `distance` * Count / 2 of a block [size, 16], rows against rows.
template <int Count>
void rotate_stages(float* block, std::size_t size, std::size_t distance) {
  for (std::size_t start = 0; start < size; start += Count * distance) {
    for (std::size_t at = start * kPartials; at < (start + distance) * kPartials; at += kWidth) {
      F32 x[Count];
      unroll<Count>([&](auto i) { x[i.value] = load(block + at + i.value * distance * kPartials); });
      cross_butterflies(x);
      unroll<Count>([&](auto i) { store(x[i.value], block + at + i.value * distance * kPartials); });
    }
  }
}

void rotate_lanes_block(float* block, std::size_t size, float* out, std::size_t out_stride) {
  std::size_t distance = 1;
  for (; distance * 8 <= size; distance *= 8) rotate_stages<8>(block, size, distance);
  if (distance * 4 == size) rotate_stages<4>(block, size, distance);
  if (distance * 2 == size) rotate_stages<2>(block, size, distance);
  const F32 unit = splat(static_cast<float>(1.0 / __builtin_sqrt(static_cast<double>(size))));
  for (std::size_t row = 0; row < size; ++row) {
    unroll<kPartialVectors>([&](auto i) {
      store(load(block + row * kPartials + i.value * kWidth) * unit, out + row * out_stride + i.value * kWidth);
    });
  }
}

void rotate_lanes(float* values, std::size_t dim, float* out, std::size_t out_stride) {
  for (std::size_t left = dim; left > 0;) {
    std::size_t size = 16;
    while (size * 2 <= left) size *= 2;
    rotate_lanes_block(values, size, out, out_stride);
    values += size * kPartials;
    out += size * out_stride;
    left -= size;
  }
}

void transpose(const float* in, std::size_t rows, std::size_t columns, std::size_t in_stride, float* out,
               std::size_t out_stride) {
  for (std::size_t row = 0; row < rows; row += kWidth) {
    for (std::size_t column = 0; column < columns; column += kWidth) {
      F32 square[kWidth];
      unroll<kWidth>([&](auto i) { square[i.value] = load(in + (row + i.value) * in_stride + column); });
      transpose_square(square);
      unroll<kWidth>([&](auto i) { store(square[i.value], out + (column + i.value) * out_stride + row); });
    }
  }
}

}  // namespace
}  // namespace kvarn
