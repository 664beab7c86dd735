// Multiply-accumulate of some vectors with exact rows in half precision, as blocks of 16 tokens hold them
// (format/exact_block.hpp). Every result is one chain of multiply and add over the rows from 0 upwards, so that neither
// the blocking in registers nor the choice between reading the halves and expanding them to a panel first changes a
// bit.
#pragma once

#include "kernels/kernel_table.hpp"
#include "simd/half_vector.hpp"

namespace kvarn {
namespace {

constexpr std::size_t kHalfBlock = 16;                        // tokens
constexpr int kBlockVectors = kWidth < 16 ? 16 / kWidth : 1;  // lanes are whole blocks, too

// Up to this many vectors widening every half again costs less than the panel.
constexpr std::size_t kDirectVectors = 8;

// Queries share one pass over as many vectors of lanes as leave room for their sums, weights, the lanes and a product
// in 32 registers (AVX-512, NEON) or 16.
constexpr int kMostQueries = 6;
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kPanelVectors = 4;
template <int Queries>
constexpr int direct_vectors() {
  return Queries <= 3 ? 8 : 4;
}
#else
constexpr int kPanelVectors = 2;
template <int Queries>
constexpr int direct_vectors() {
  return Queries == 1 ? 8 : Queries == 2 ? 4 : 2;
}
#endif

constexpr std::size_t kLineHalves = 64 / sizeof(HalfBits);  // of a cache line

KVARN_INLINE void prefetch_halves(const HalfBits* from, std::size_t count) {
  for (std::size_t i = 0; i < count; i += kLineHalves) __builtin_prefetch(from + i);
}

// Lanes in blocks of 16: [rows, 16] halves each. Blocks are too short and lie too far apart for the processor to guess:
// every row fetches a cache line, the first half of them the next blocks, the others what is read after all blocks.
class HalfLaneSource {
 public:
  KVARN_INLINE HalfLaneSource(const HalfBits* const* blocks, const HalfBits* const* ahead, std::size_t rows,
                              std::size_t lanes)
      : blocks_(blocks), ahead_(ahead == nullptr ? blocks : ahead), rows_(rows), lanes_(lanes) {}

  // use(row, from) for every row from 0 upwards; from(v) are the halves of lanes lane + v*kWidth ...
  template <int Vectors, class Use>
  KVARN_INLINE void for_each_row(std::size_t lane, Use&& use) const {
    constexpr int kBlocks = (Vectors * kWidth + static_cast<int>(kHalfBlock) - 1) / static_cast<int>(kHalfBlock);
    const std::size_t block = lane / kHalfBlock;
    const HalfBits* first[Vectors];
    unroll<Vectors>([&](auto v) {
      const std::size_t at = lane + v.value * kWidth;
      first[v.value] = blocks_[at / kHalfBlock] + at % kHalfBlock;
    });
    const HalfBits* fetched[kBlocks];
    unroll<kBlocks>([&](auto b) {
      const std::size_t next = block + kBlocks + b.value;
      fetched[b.value] = blocks_[next * kHalfBlock < lanes_ ? next : block];
    });
    for (std::size_t row = 0; row < rows_; ++row) {
      if (row == rows_ / 2) unroll<kBlocks>([&](auto b) { fetched[b.value] = ahead_[block + b.value]; });
      unroll<kBlocks>([&](auto b) {
        __builtin_prefetch(fetched[b.value]);
        fetched[b.value] += kLineHalves;
      });
      use(
          row, [&](auto v) __attribute__((always_inline)) { return first[v.value] + row * kHalfBlock; });
    }
  }

 private:
  const HalfBits* const* blocks_;
  const HalfBits* const* ahead_;
  std::size_t rows_;
  std::size_t lanes_;
};

// Rows in blocks of 16: [16, lanes] halves each. The head blocks of a tile lie apart, too short and too far for the
// processor to guess, so every row fetches the same row of the next block.
class HalfRowSource {
 public:
  KVARN_INLINE HalfRowSource(const HalfBits* const* blocks, std::size_t rows, std::size_t lanes)
      : blocks_(blocks), rows_(rows), lanes_(lanes) {}

  template <int Vectors, class Use>
  KVARN_INLINE void for_each_row(std::size_t lane, Use&& use) const {
    for (std::size_t start = 0; start < rows_; start += kHalfBlock) {
      const HalfBits* from = blocks_[start / kHalfBlock] + lane;
      const bool is_last = rows_ - start <= kHalfBlock;
      const std::size_t end = is_last ? rows_ : start + kHalfBlock;
      const HalfBits* next = is_last ? from : blocks_[start / kHalfBlock + 1] + lane;
      for (std::size_t row = start; row < end; ++row, from += lanes_, next += lanes_) {
        prefetch_halves(next, Vectors * kWidth);
        use(
            row, [&](auto v) __attribute__((always_inline)) { return from + v.value * kWidth; });
      }
    }
  }

 private:
  const HalfBits* const* blocks_;
  std::size_t rows_;
  std::size_t lanes_;
};

template <int Queries, int Vectors>
KVARN_INLINE void store_sums(const Accumulation& sum, std::size_t first, std::size_t lane,
                             const F32 (&total)[Queries][Vectors]) {
  unroll<Queries>([&](auto q) {
    const std::size_t vector = first + q.value;
    unroll<Vectors>([&](auto v) {
      float* out = sum.out[vector] + lane + v.value * kWidth;
      F32 value = total[q.value][v.value];
      if (sum.adds) value = load(out) + value;
      store(value, out);
    });
  });
}

// Queries vectors from `first` on with Vectors * kWidth lanes from `lane` on. Halves are widened one vector at a time,
// so that sums and weights can have nearly all registers.
template <int Queries, int Vectors, class Source>
void accumulate_halves_block(const Source& source, const Accumulation& sum, std::size_t first, std::size_t lane) {
  const float* a[Queries];
  F32 total[Queries][Vectors] = {};
  unroll<Queries>([&](auto q) { a[q.value] = sum.a + (first + q.value) * sum.a_stride; });
  source.template for_each_row<Vectors>(
      lane, [&](std::size_t row, auto&& from) __attribute__((always_inline)) {
        F32 weight[Queries];
        unroll<Queries>([&](auto q) __attribute__((always_inline)) { weight[q.value] = splat(a[q.value][row]); });
        unroll<Vectors>([&](auto v) __attribute__((always_inline)) {
          const F32 x = load_halves(from(v));
          unroll<Queries>([&](auto q)
                              __attribute__((always_inline)) { total[q.value][v.value] += weight[q.value] * x; });
        });
      });
  store_sums(sum, first, lane, total);
}

template <int Queries, int Vectors, class Source>
KVARN_INLINE std::size_t accumulate_halves_lanes(const Source& source, const Accumulation& sum, std::size_t first,
                                                 std::size_t lane, std::size_t lanes) {
  constexpr std::size_t kBlock = std::size_t{Vectors} * kWidth;
  for (; lane + kBlock <= lanes; lane += kBlock) {
    accumulate_halves_block<Queries, Vectors>(source, sum, first, lane);
  }
  return lane;
}

template <int Queries, class Source>
void accumulate_few(const Source& source, const Accumulation& sum, std::size_t first, std::size_t lanes) {
  constexpr int kMost = direct_vectors<Queries>();
  std::size_t lane = accumulate_halves_lanes<Queries, kMost>(source, sum, first, 0, lanes);
  if constexpr (kMost > 4) lane = accumulate_halves_lanes<Queries, 4>(source, sum, first, lane, lanes);
  if constexpr (kMost > kBlockVectors) {
    accumulate_halves_lanes<Queries, kBlockVectors>(source, sum, first, lane, lanes);
  }
}

template <class Source>
void accumulate_direct(const Source& source, const Accumulation& sum, std::size_t lanes) {
  std::size_t first = 0;
  for (; sum.vectors - first > kMostQueries; first += 4) accumulate_few<4>(source, sum, first, lanes);
  with_count<kMostQueries>(sum.vectors - first,
                           [&](auto queries) { accumulate_few<decltype(queries)::value>(source, sum, first, lanes); });
}

// Lanes of a tile in single precision: [rows, kPanelLanes] for lanes first_lane ... end_lane of it.
struct Panel {
  const float* values;
  std::size_t rows;
  std::size_t first_lane;
  std::size_t end_lane;
};

template <int Queries, int Vectors>
void accumulate_panel_block(const Panel& panel, const Accumulation& sum, std::size_t first, std::size_t lane) {
  const float* a[Queries];
  F32 total[Queries][Vectors] = {};
  unroll<Queries>([&](auto q) { a[q.value] = sum.a + (first + q.value) * sum.a_stride; });
  const float* from = panel.values + (lane - panel.first_lane);
  for (std::size_t row = 0; row < panel.rows; ++row, from += kPanelLanes) {
    F32 x[Vectors];
    unroll<Vectors>([&](auto v) { x[v.value] = load(from + v.value * kWidth); });
    unroll<Queries>([&](auto q) __attribute__((always_inline)) {
      const F32 weight = splat(a[q.value][row]);
      unroll<Vectors>([&](auto v) __attribute__((always_inline)) { total[q.value][v.value] += weight * x[v.value]; });
    });
  }
  store_sums(sum, first, lane, total);
}

template <int Queries>
void accumulate_panel_lanes(const Panel& panel, const Accumulation& sum, std::size_t first) {
  constexpr std::size_t kBlock = std::size_t{kPanelVectors} * kWidth;
  std::size_t lane = panel.first_lane;
  for (; lane + kBlock <= panel.end_lane; lane += kBlock) {
    accumulate_panel_block<Queries, kPanelVectors>(panel, sum, first, lane);
  }
  if constexpr (kPanelVectors > kBlockVectors) {
    for (; lane < panel.end_lane; lane += kHalfBlock) {
      accumulate_panel_block<Queries, kBlockVectors>(panel, sum, first, lane);
    }
  }
}

void accumulate_panel(const Panel& panel, const Accumulation& sum) {
  std::size_t first = 0;
  for (; first + kMostQueries <= sum.vectors; first += kMostQueries) {
    accumulate_panel_lanes<kMostQueries>(panel, sum, first);
  }
  with_count<kMostQueries>(sum.vectors - first,
                           [&](auto queries) { accumulate_panel_lanes<decltype(queries)::value>(panel, sum, first); });
}

template <int Vectors, class Source>
KVARN_INLINE void expand_lanes(const Source& source, std::size_t lane, float* panel) {
  source.template for_each_row<Vectors>(
      lane, [&](std::size_t row, auto&& from) __attribute__((always_inline)) {
        float* to = panel + row * kPanelLanes;
        unroll<Vectors>([&](auto v)
                            __attribute__((always_inline)) { store(load_halves(from(v)), to + v.value * kWidth); });
      });
}

template <class Source>
void accumulate_halves(const Source& source, std::size_t rows, std::size_t lanes, const Accumulation& sum) {
  if (sum.vectors <= kDirectVectors) return accumulate_direct(source, sum, lanes);
  constexpr std::size_t kBlock = std::size_t{4} * kWidth;
  for (std::size_t start = 0; start < lanes; start += kPanelLanes) {
    const std::size_t end = lanes - start < kPanelLanes ? lanes : start + kPanelLanes;
    std::size_t lane = start;
    for (; lane + kBlock <= end; lane += kBlock) expand_lanes<4>(source, lane, sum.panel + (lane - start));
    for (; lane < end; lane += kHalfBlock) expand_lanes<kBlockVectors>(source, lane, sum.panel + (lane - start));
    accumulate_panel({sum.panel, rows, start, end}, sum);
  }
}

void accumulate_half_rows(const HalfBits* const* blocks, std::size_t rows, std::size_t lanes,
                          const Accumulation& accumulation) {
  accumulate_halves(HalfRowSource(blocks, rows, lanes), rows, lanes, accumulation);
}

void accumulate_half_lanes(const HalfBits* const* blocks, std::size_t rows, std::size_t lanes,
                           const Accumulation& accumulation) {
  accumulate_halves(HalfLaneSource(blocks, accumulation.ahead, rows, lanes), rows, lanes, accumulation);
}

}  // namespace
}  // namespace kvarn
