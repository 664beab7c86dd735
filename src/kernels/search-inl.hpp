// The search for a row's step and zero, and what error feedback between rows needs. The arithmetic is normative
// (docs/format/tile_record.md): the reference does the same, number by number.
#pragma once

#include "kernels/normalize-inl.hpp"

namespace kvarn {
namespace {

constexpr float kLeastStep = 0x1p-14f;
constexpr float kLeastHalf = 0x1p-24f;
constexpr float kMostStretch = 1.5f;  // of the step with the least square error
// Ranges tried: the whole one, and at 2 bits two more, 1/8 less every time. Wider codes lose most where large keys are
// clipped, since those are the ones that queries find (docs/decisions/0009).
KVARN_INLINE int clip_count(float top) { return top > 3.0f ? 1 : 3; }

float sum_values(const float* values, std::size_t count) {
  return sum_row(values, count, [](F32 x) { return x; });
}

template <int Vectors>
KVARN_INLINE void lane_squares_block(const float* values, std::size_t rows, std::size_t lanes, float* sums) {
  F32 sum[Vectors] = {};
  for (std::size_t row = 0; row < rows; ++row) {
    unroll<Vectors>([&](auto i) {
      const F32 value = load(values + row * lanes + i.value * kWidth);
      sum[i.value] += value * value;
    });
  }
  unroll<Vectors>([&](auto i) { store(sum[i.value], sums + i.value * kWidth); });
}

void lane_squares(const float* values, std::size_t rows, std::size_t lanes, float* sums) {
  in_lane_blocks<8>(lanes, [&](auto vectors, std::size_t lane) {
    lane_squares_block<vectors.value>(values + lane, rows, lanes, sums + lane);
  });
}

template <int Vectors>
KVARN_INLINE void add_rows_block(const float* start, const WeightedRows& rows, std::size_t lane, float* out) {
  F32 sum[Vectors];
  unroll<Vectors>([&](auto i) { sum[i.value] = start == nullptr ? F32{} : load(start + lane + i.value * kWidth); });
  for (std::size_t row = 0; row < rows.count; ++row) {
    const F32 weight = splat(rows.weights[row]);
    unroll<Vectors>(
        [&](auto i) { sum[i.value] += weight * load(rows.values + row * rows.lanes + lane + i.value * kWidth); });
  }
  unroll<Vectors>([&](auto i) { store(sum[i.value], out + lane + i.value * kWidth); });
}

void add_rows(const float* start, const WeightedRows& rows, float* out) {
  in_lane_blocks<4>(rows.lanes,
                    [&](auto vectors, std::size_t lane) { add_rows_block<vectors.value>(start, rows, lane, out); });
}

KVARN_INLINE F32 load_codes(const std::uint8_t* codes) { return to_float(reinterpret_cast<I32>(load_bytes(codes))); }

// Rounds to the nearest even whole number, within 0 and top.
KVARN_INLINE F32 nearest_code(F32 exact, float top) {
  constexpr float kRounder = 0x1.8p23f;  // adding and taking it away rounds
  const F32 bounded = max(min(exact, splat(top)), F32{});
  return (bounded + kRounder) - kRounder;
}

// Weighted sums over a row with d = value - middle.
struct ValueSums {
  F32 value[kPartialVectors] = {};
  F32 value_value[kPartialVectors] = {};

  KVARN_INLINE void add(int part, F32 weight, F32 d) {
    const F32 weighted = weight * d;
    value[part] += weighted;
    value_value[part] += weighted * d;
  }
};

// And with c = code - top / 2.
struct CodeSums {
  F32 code[kPartialVectors] = {};
  F32 code_code[kPartialVectors] = {};
  F32 code_value[kPartialVectors] = {};

  KVARN_INLINE void add(int part, F32 weight, F32 c, F32 d) {
    const F32 weighted = weight * c;
    code[part] += weighted;
    code_code[part] += weighted * c;
    code_value[part] += weighted * d;
  }
};

// A row's values around their weighted centre.
struct Spread {
  float middle;
  float sum;     // of weighted distances from middle
  float square;  // of weighted squares of distances from the centre
};

KVARN_INLINE Spread spread(const ValueSums& sums, float weight, float middle) {
  const float sum = sum_partials(sums.value);
  return {middle, sum, sum_partials(sums.value_value) - sum * (sum / weight)};
}

// How a row's codes and values go together.
struct Relation {
  float value_centre;
  float code_centre;
  float covariance;   // weighted, as code_square
  float code_square;  // of distances from the centre
  // Codes that say nothing of the values give no line.
  KVARN_INLINE bool is_line() const { return covariance > 0.0f && code_square > 0.0f; }
  KVARN_INLINE float least_squares_step() const { return covariance / code_square; }
};

KVARN_INLINE Relation relate(const CodeSums& sums, const Spread& values, float weight, float top) {
  const float code = sum_partials(sums.code);
  const float mean_code = code / weight;
  return {values.middle + values.sum / weight, mean_code + top * 0.5f,
          sum_partials(sums.code_value) - code * (values.sum / weight),
          sum_partials(sums.code_code) - code * mean_code};
}

KVARN_INLINE LineFit line_of(float step, const Relation& relation) {
  return {step < kLeastStep ? kLeastStep : step, relation.value_centre, relation.code_centre};
}

KVARN_INLINE Spread spread_around(const RowTarget& row, float middle) {
  ValueSums sums;
  for (std::size_t lane = 0; lane < row.lanes; lane += kPartials) {
    unroll<kPartialVectors>([&](auto i) {
      const std::size_t at = lane + i.value * kWidth;
      sums.add(i.value, load(row.lane_weight + at), load(row.values + at) - splat(middle));
    });
  }
  return spread(sums, row.weight, middle);
}

LineFit search_line(const RowTarget& row, float top) {
  const Range range = row_range(row.values, row.lanes);
  const float middle = (range.low + range.high) * 0.5f;
  const Spread values = spread_around(row, middle);
  LineFit best = {kLeastStep, middle, top * 0.5f};
  float best_gain = 0.0f;
  for (int clip = 0; clip < clip_count(top); ++clip) {
    const float wanted = (range.high - range.low) * (1.0f - 0.125f * static_cast<float>(clip)) / top;
    const F32 factor = splat(1.0f / (wanted < kLeastStep ? kLeastStep : wanted));
    CodeSums sums;
    for (std::size_t lane = 0; lane < row.lanes; lane += kPartials) {
      unroll<kPartialVectors>([&](auto i) {
        const std::size_t at = lane + i.value * kWidth;
        const F32 distance = load(row.values + at) - splat(middle);
        const F32 code = nearest_code(distance * factor + splat(top * 0.5f), top);
        sums.add(i.value, load(row.lane_weight + at), code - splat(top * 0.5f), distance);
      });
    }
    const Relation found = relate(sums, values, row.weight, top);
    if (!found.is_line()) continue;
    const float step = found.least_squares_step();
    if (!(found.covariance * step > best_gain)) continue;
    best_gain = found.covariance * step;
    best = line_of(step, found);
  }
  return best;
}

// The codes of a line that are not kept: kWidth of them for values.
KVARN_INLINE F32 codes_of(F32 values, const Line& line, F32 factor, float top) {
  return nearest_code((values - splat(line.zero)) * factor, top);
}

// The even line of codes_at(lane), kWidth codes from there on.
template <class Codes>
KVARN_INLINE LineFit fit_codes(const RowTarget& row, float top, float middle, Codes codes_at) {
  CodeSums sums;
  ValueSums value_sums;
  for (std::size_t lane = 0; lane < row.lanes; lane += kPartials) {
    unroll<kPartialVectors>([&](auto i) {
      const std::size_t at = lane + i.value * kWidth;
      const F32 distance = load(row.values + at) - splat(middle);
      const F32 weight = load(row.lane_weight + at);
      value_sums.add(i.value, weight, distance);
      sums.add(i.value, weight, codes_at(at) - splat(top * 0.5f), distance);
    });
  }
  const Spread values = spread(value_sums, row.weight, middle);
  const Relation found = relate(sums, values, row.weight, top);
  if (!found.is_line()) return {kLeastStep, found.value_centre, top * 0.5f};
  const float least = found.least_squares_step();
  const float most = kMostStretch * least;
  float step = values.square / found.covariance;
  step = step < least ? least : step;
  step = most < step ? most : step;
  return line_of(step, found);
}

LineFit fit_line(const RowTarget& row, const std::uint8_t* codes, float top, float middle) {
  return fit_codes(row, top, middle, [&](std::size_t at) { return load_codes(codes + at); });
}

LineFit fit_rounded(const RowTarget& row, const Line& line, float top, float middle) {
  const F32 factor = splat(1.0f / line.step);
  return fit_codes(row, top, middle,
                   [&](std::size_t at) { return codes_of(load(row.values + at), line, factor, top); });
}

void round_to_line(const RowTarget& row, const Line& line, float top, std::uint8_t* codes) {
  const F32 factor = splat(1.0f / line.step);
  for (std::size_t lane = 0; lane < row.lanes; lane += kWidth) {
    const F32 code = codes_of(load(row.values + lane), line, factor, top);
    store_codes(code, codes + lane);
  }
}

// The least and the greatest value of four rows next to each other.
KVARN_INLINE void four_ranges(const ScaledTile& tile, std::size_t row, float* low, float* high) {
  const float* values = tile.values + row * tile.lanes;
  F32 lows[4];
  F32 highs[4];
  unroll<4>([&](auto i) {
    lows[i.value] = load(values + i.value * tile.lanes) * load(tile.lane_factor);
    highs[i.value] = lows[i.value];
  });
  for (std::size_t lane = kWidth; lane < tile.lanes; lane += kWidth) {
    const F32 factor = load(tile.lane_factor + lane);
    unroll<4>([&](auto i) {
      const F32 value = load(values + i.value * tile.lanes + lane) * factor;
      lows[i.value] = min(lows[i.value], value);
      highs[i.value] = max(highs[i.value], value);
    });
  }
  const F32 lowest = halve_four(lows, [](F32 a, F32 b) { return min(a, b); });
  const F32 highest = halve_four(highs, [](F32 a, F32 b) { return max(a, b); });
  unroll<4>([&](auto i) {
    low[i.value] = lowest[i.value * kFourStep] + 0.0f;  // a minimum of zero counts as +0
    high[i.value] = highest[i.value * kFourStep];
  });
}

// 16 rows at a time, so that their values are read from memory once.
void round_to_ranges(const ScaledTile& tile, float row_unit, float top, HalfBits* row_scale, HalfBits* row_zero,
                     std::uint8_t* codes) {
  constexpr std::size_t kRows = 16;
  for (std::size_t row = 0; row < tile.rows; row += kRows) {
    float low[kRows];
    float high[kRows];
    for (std::size_t i = 0; i < kRows; i += 4) four_ranges(tile, row + i, low + i, high + i);
    float factor[kRows];
    float zero[kRows];
    for (std::size_t i = 0; i < kRows; i += kWidth) {
      const F32 wanted = max((load(high + i) - load(low + i)) / splat(top), splat(kLeastStep));
      store_halves(max(wanted * splat(row_unit), splat(kLeastHalf)), row_scale + row + i);
      const F32 step = load_halves(row_scale + row + i) / splat(row_unit);
      const F32 centre = (load(low + i) + load(high + i)) * splat(0.5f);
      store_halves((centre - step * splat(top * 0.5f)) * splat(row_unit), row_zero + row + i);
      store(splat(1.0f) / step, factor + i);
      store(load_halves(row_zero + row + i) / splat(row_unit), zero + i);
    }
    for (std::size_t i = 0; i < kRows; ++i) {
      const std::size_t start = (row + i) * tile.lanes;
      for (std::size_t lane = 0; lane < tile.lanes; lane += kWidth) {
        const F32 value = load(tile.values + start + lane) * load(tile.lane_factor + lane);
        const F32 code = nearest_code((value - splat(zero[i])) * splat(factor[i]), top);
        store_codes(code, codes + start + lane);
      }
    }
  }
}

void line_errors(const float* row, const std::uint8_t* codes, const Line& line, std::size_t lanes, float* errors) {
  for (std::size_t lane = 0; lane < lanes; lane += kWidth) {
    store(load(row + lane) - (load_codes(codes + lane) * splat(line.step) + splat(line.zero)), errors + lane);
  }
}

void eliminate(float* matrix, std::size_t size, std::size_t pivot, float* weights) {
  const float* row = matrix + pivot * size;
  const float factor = 1.0f / row[pivot];
  for (std::size_t other = 0; other < pivot; ++other) {
    weights[other] = row[other] * factor;
    const F32 weight = splat(-weights[other]);
    float* to = matrix + other * size;
    for (std::size_t column = 0; column <= other; column += kWidth) {
      store(load(to + column) + weight * load(row + column), to + column);
    }
  }
}

}  // namespace
}  // namespace kvarn
