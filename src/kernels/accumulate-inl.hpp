// Multiply-accumulate of a few vectors with one tile, whatever the tile's rows are kept in: codes, half rows, half
// lanes. Every result is one chain of multiply and add over the rows from 0 upwards, so that neither the blocking in
// registers nor the choice between reading the source directly and expanding it to a panel first changes a bit.
#pragma once

#include "kernels/kernel_table.hpp"
#include "simd/half_vector.hpp"

namespace kvarn {
namespace {

// Registers: Vectors * (queries + 1) accumulators and operands must fit in 32 (AVX-512, NEON) or 16 of them.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kMostQueries = 6;
constexpr int kSourceQueries = 4;
constexpr int kVectors = 4;
#else
constexpr int kMostQueries = 6;
constexpr int kSourceQueries = 4;
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

// Rows of one head lie a whole token apart: too far for the processor to guess, so they are fetched this many ahead.
constexpr std::size_t kRowsAhead = 12;

KVARN_INLINE void prefetch_halves(const HalfBits* from, std::size_t count) {
  constexpr std::size_t kLine = 64 / sizeof(HalfBits);
  for (std::size_t i = 0; i < count; i += kLine) __builtin_prefetch(from + i);
}

// Rows of half precision anywhere in memory.
class HalfRowSource {
 public:
  KVARN_INLINE HalfRowSource(const HalfBits* const* row_pointers, std::size_t rows)
      : row_pointers_(row_pointers), rows_(rows) {}

  template <int Vectors, class Use>
  KVARN_INLINE void for_each_row(std::size_t lane, Use&& use) const {
    for (std::size_t row = 0; row < rows_; ++row) {
      const HalfBits* from = row_pointers_[row] + lane;
      if (row + kRowsAhead < rows_) prefetch_halves(row_pointers_[row + kRowsAhead] + lane, Vectors * kWidth);
      F32 x[Vectors];
      unroll<Vectors>([&](auto v) { x[v.value] = load_halves(from + v.value * kWidth); });
      use(row, x);
    }
  }

 private:
  const HalfBits* const* row_pointers_;
  std::size_t rows_;
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

// Few vectors read the source directly; for many it is expanded once, a panel that fits the cache at a time.
template <class Source>
void accumulate_source(const Source& source, std::size_t rows, std::size_t lanes, const Accumulation& sum) {
  if (sum.vectors <= 2 * kSourceQueries) return accumulate_all<kSourceQueries>(source, sum, 0, lanes);
  for (std::size_t start = 0; start < lanes; start += kPanelLanes) {
    const std::size_t end = lanes - start < kPanelLanes ? lanes : start + kPanelLanes;
    for (std::size_t lane = start; lane < end; lane += kWidth) {
      float* panel = sum.panel + (lane - start);
      source.template for_each_row<1>(
          lane, [&](std::size_t row, const F32(&x)[1]) { store(x[0], panel + row * kPanelLanes); });
    }
    accumulate_all<kMostQueries>(PanelSource(sum.panel, rows, start), sum, start, end);
  }
}

void accumulate_half_rows(const HalfBits* const* row_pointers, std::size_t rows, std::size_t lanes,
                          const Accumulation& accumulation) {
  accumulate_source(HalfRowSource(row_pointers, rows), rows, lanes, accumulation);
}

// Lanes are the contiguous halves' owners here, so squares of them are transposed into the panel.
void accumulate_half_lanes(const HalfBits* const* lane_pointers, std::size_t rows, std::size_t lanes,
                           const Accumulation& accumulation) {
  for (std::size_t start = 0; start < lanes; start += kPanelLanes) {
    const std::size_t end = lanes - start < kPanelLanes ? lanes : start + kPanelLanes;
    for (std::size_t lane = start; lane < end; lane += kWidth) {
      for (std::size_t i = lane + kRowsAhead; i < lane + kRowsAhead + kWidth && i < lanes; ++i) {
        prefetch_halves(lane_pointers[i], rows);
      }
      for (std::size_t row = 0; row < rows; row += kWidth) {
        F32 square[kWidth];
        unroll<kWidth>([&](auto i) { square[i.value] = load_halves(lane_pointers[lane + i.value] + row); });
        transpose_square(square);
        float* panel = accumulation.panel + row * kPanelLanes + (lane - start);
        unroll<kWidth>([&](auto i) { store(square[i.value], panel + i.value * kPanelLanes); });
      }
    }
    accumulate_all<kMostQueries>(PanelSource(accumulation.panel, rows, start), accumulation, start, end);
  }
}

}  // namespace
}  // namespace kvarn
