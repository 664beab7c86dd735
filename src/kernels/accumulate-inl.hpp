// Multiply-accumulate of a few vectors with one tile, whatever the tile's rows are kept in. Every result is one chain
// of multiply and add over the rows from 0 upwards, so that neither the blocking in registers nor the choice between
// reading the source directly and expanding it to a panel first changes a bit.
#pragma once

#include "kernels/kernel_table.hpp"
#include "simd/half_vector.hpp"

namespace kvarn {
namespace {

// Registers: Vectors * (queries + 1) accumulators and operands must fit in 32 (AVX-512, NEON) or 16 of them.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kMostQueries = 6;
constexpr int kVectors = 4;
#else
constexpr int kMostQueries = 6;
constexpr int kVectors = 2;
#endif

// A panel of single-precision rows, [rows, kPanelLanes], that stands for lanes first_lane ... of the tile.
class PanelSource {
 public:
  KVARN_INLINE PanelSource(const float* panel, std::size_t rows, std::size_t first_lane)
      : panel_(panel), rows_(rows), first_lane_(first_lane) {}

  template <int Vectors, class Use>
  KVARN_INLINE void for_each_row(std::size_t lane, Use&& use) const {
    const float* from = panel_ + (lane - first_lane_);
    for (std::size_t row = 0; row < rows_; ++row, from += kPanelLanes) {
      F32 x[Vectors];
      unroll<Vectors>([&](auto v) { x[v.value] = load(from + v.value * kWidth); });
      use(row, x);
    }
  }

 private:
  const float* panel_;
  std::size_t rows_;
  std::size_t first_lane_;
};

KVARN_INLINE void finish_lanes(const Accumulation& sum, std::size_t vector, std::size_t lane, F32 value) {
  if (sum.bias != nullptr) value += splat(sum.bias[vector]);
  if (sum.lane_scale != nullptr) value *= load(sum.lane_scale + lane);
  float* out = sum.out[vector] + lane;
  if (sum.keep != nullptr) value = load(out) * splat(sum.keep[vector]) + value;
  store(value, out);
}

// Queries vectors from `first` on with Vectors * kWidth lanes from `lane` on, all sums in registers.
template <int Queries, int Vectors, class Source>
void accumulate_block(const Source& source, const Accumulation& sum, std::size_t first, std::size_t lane) {
  const float* a[Queries];
  F32 total[Queries][Vectors] = {};
  unroll<Queries>([&](auto q) { a[q.value] = sum.a + (first + q.value) * sum.a_stride; });
  source.template for_each_row<Vectors>(
      lane, [&](std::size_t row, const F32(&x)[Vectors]) __attribute__((always_inline)) {
        unroll<Queries>([&](auto q) __attribute__((always_inline)) {
          const F32 weight = splat(a[q.value][row]);
          unroll<Vectors>([&](auto v)
                              __attribute__((always_inline)) { total[q.value][v.value] += weight * x[v.value]; });
        });
      });
  unroll<Queries>([&](auto q) {
    unroll<Vectors>(
        [&](auto v) { finish_lanes(sum, first + q.value, lane + v.value * kWidth, total[q.value][v.value]); });
  });
}

template <int Queries, class Source>
void accumulate_lanes(const Source& source, const Accumulation& sum, std::size_t first, std::size_t lane,
                      std::size_t lane_end) {
  constexpr std::size_t kBlock = std::size_t{kVectors} * kWidth;
  for (; lane + kBlock <= lane_end; lane += kBlock) {
    accumulate_block<Queries, kVectors>(source, sum, first, lane);
  }
  for (; lane < lane_end; lane += kWidth) accumulate_block<Queries, 1>(source, sum, first, lane);
}

// Queries, Queries - 1, ... 1: the block size that fits what is left.
template <int Queries, class Source>
void accumulate_rest(const Source& source, const Accumulation& sum, std::size_t first, std::size_t lane,
                     std::size_t lane_end) {
  if constexpr (Queries > 0) {
    if (sum.vectors - first == Queries) {
      accumulate_lanes<Queries>(source, sum, first, lane, lane_end);
    } else {
      accumulate_rest<Queries - 1>(source, sum, first, lane, lane_end);
    }
  }
}

template <int Queries, class Source>
void accumulate_all(const Source& source, const Accumulation& sum, std::size_t lane, std::size_t lane_end) {
  std::size_t first = 0;
  for (; first + Queries <= sum.vectors; first += Queries) {
    accumulate_lanes<Queries>(source, sum, first, lane, lane_end);
  }
  accumulate_rest<Queries - 1>(source, sum, first, lane, lane_end);
}

}  // namespace
}  // namespace kvarn
