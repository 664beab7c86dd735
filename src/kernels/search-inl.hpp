// The search for a row's step and zero, and what error feedback between rows needs. The arithmetic is normative
// (docs/format/tile_record.md): the reference does the same, number by number.
#pragma once

#include "kernels/normalize-inl.hpp"

namespace kvarn {
namespace {

constexpr float kLeastStep = 0x1p-14f;
// Ranges tried: the whole one, and at 2 bits four more, 1/8 less every time. Wider codes lose most where large keys are
// clipped, since those are the ones that queries find (docs/decisions/0009).
KVARN_INLINE int clip_count(float top) { return top > 3.0f ? 1 : 5; }

float sum_values(const float* values, std::size_t count) {
  return sum_row(values, count, [](F32 x) { return x; });
}

void lane_products(const float* a, const float* b, std::size_t rows, std::size_t lanes, float* sums) {
  for (std::size_t lane = 0; lane < lanes; lane += kWidth) {
    F32 sum = {};
    for (std::size_t row = 0; row < rows; ++row) {
      sum += load(a + row * lanes + lane) * load(b + row * lanes + lane);
    }
    store(sum, sums + lane);
  }
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
  constexpr std::size_t kBlock = 4 * kWidth;
  std::size_t lane = 0;
  for (; lane + kBlock <= rows.lanes; lane += kBlock) add_rows_block<4>(start, rows, lane, out);
  for (; lane < rows.lanes; lane += kWidth) add_rows_block<1>(start, rows, lane, out);
}

KVARN_INLINE F32 load_codes(const std::uint8_t* codes) {
  return to_float(__builtin_convertvector(load_as<U8>(codes), I32));
}

// Rounds to the nearest even whole number, within 0 and top.
KVARN_INLINE F32 nearest_code(F32 exact, float top) {
  constexpr float kRounder = 0x1.8p23f;  // adding and taking it away rounds
  const F32 bounded = max(min(exact, splat(top)), F32{});
  return (bounded + kRounder) - kRounder;
}

// Weighted sums over a row with d = value - middle and c = code - top / 2.
struct LineSums {
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

// The least-squares line through codes and values, and how much of the values' weighted square it explains.
struct ExplainedLine {
  LineFit fit;
  float gain;
};

KVARN_INLINE ExplainedLine explain(const LineSums& sums, float value_sum, float weight, float middle, float top) {
  const float code = sum_partials(sums.code);
  const float mean_code = code / weight;
  const float numerator = sum_partials(sums.code_value) - code * (value_sum / weight);
  const float denominator = sum_partials(sums.code_code) - code * mean_code;
  const float value_centre = middle + value_sum / weight;
  if (!(numerator > 0.0f && denominator > 0.0f)) return {{kLeastStep, value_centre, top * 0.5f}, 0.0f};
  const float step = numerator / denominator;
  return {{step < kLeastStep ? kLeastStep : step, value_centre, mean_code + top * 0.5f}, numerator * step};
}

KVARN_INLINE float weighted_distance(const RowTarget& row, float middle) {
  F32 sums[kPartialVectors] = {};
  for (std::size_t lane = 0; lane < row.lanes; lane += kPartials) {
    unroll<kPartialVectors>([&](auto i) {
      const std::size_t at = lane + i.value * kWidth;
      const F32 distance = load(row.values + at) * load(row.lane_factor + at) - splat(middle);
      sums[i.value] += load(row.lane_weight + at) * distance;
    });
  }
  return sum_partials(sums);
}

KVARN_INLINE Range scaled_range(const RowTarget& row) {
  F32 low = load(row.values) * load(row.lane_factor);
  F32 high = low;
  for (std::size_t lane = kWidth; lane < row.lanes; lane += kWidth) {
    const F32 value = load(row.values + lane) * load(row.lane_factor + lane);
    low = min(low, value);
    high = max(high, value);
  }
  return {smallest_lane(low) + 0.0f, largest_lane(high)};
}

LineFit search_line(const RowTarget& row, float top) {
  const Range range = scaled_range(row);
  const float middle = (range.low + range.high) * 0.5f;
  const float value_sum = weighted_distance(row, middle);
  ExplainedLine best = {{kLeastStep, middle, top * 0.5f}, 0.0f};
  for (int clip = 0; clip < clip_count(top); ++clip) {
    const float wanted = (range.high - range.low) * (1.0f - 0.125f * static_cast<float>(clip)) / top;
    const F32 factor = splat(1.0f / (wanted < kLeastStep ? kLeastStep : wanted));
    LineSums sums;
    for (std::size_t lane = 0; lane < row.lanes; lane += kPartials) {
      unroll<kPartialVectors>([&](auto i) {
        const std::size_t at = lane + i.value * kWidth;
        const F32 distance = load(row.values + at) * load(row.lane_factor + at) - splat(middle);
        const F32 code = nearest_code(distance * factor + splat(top * 0.5f), top);
        sums.add(i.value, load(row.lane_weight + at), code - splat(top * 0.5f), distance);
      });
    }
    const ExplainedLine found = explain(sums, value_sum, row.weight, middle, top);
    if (found.gain > best.gain) best = found;
  }
  return best.fit;
}

LineFit fit_line(const RowTarget& row, const std::uint8_t* codes, float top, float middle) {
  LineSums sums;
  F32 values[kPartialVectors] = {};
  for (std::size_t lane = 0; lane < row.lanes; lane += kPartials) {
    unroll<kPartialVectors>([&](auto i) {
      const std::size_t at = lane + i.value * kWidth;
      const F32 distance = load(row.values + at) * load(row.lane_factor + at) - splat(middle);
      const F32 weight = load(row.lane_weight + at);
      values[i.value] += weight * distance;
      sums.add(i.value, weight, load_codes(codes + at) - splat(top * 0.5f), distance);
    });
  }
  return explain(sums, sum_partials(values), row.weight, middle, top).fit;
}

void round_to_line(const RowTarget& row, const Line& line, float top, std::uint8_t* codes) {
  const F32 factor = splat(1.0f / line.step);
  for (std::size_t lane = 0; lane < row.lanes; lane += kWidth) {
    const F32 value = load(row.values + lane) * load(row.lane_factor + lane);
    const F32 code = nearest_code((value - splat(line.zero)) * factor, top);
    store_low_bytes(reinterpret_cast<U32>(__builtin_convertvector(code, I32)), codes + lane);
  }
}

void decode_line(const std::uint8_t* codes, std::size_t lanes, const Line& line, float* values) {
  for (std::size_t lane = 0; lane < lanes; lane += kWidth) {
    store(load_codes(codes + lane) * splat(line.step) + splat(line.zero), values + lane);
  }
}

void line_errors(const float* row, const float* values, const float* lane_scale, std::size_t lanes, float* errors) {
  for (std::size_t lane = 0; lane < lanes; lane += kWidth) {
    store(load(row + lane) - load(values + lane) * load(lane_scale + lane), errors + lane);
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
