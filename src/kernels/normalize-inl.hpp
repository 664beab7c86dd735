// What the encoder does to a tile of numbers before packing: deviations along both axes, scaling, rounding. The
// arithmetic is normative (docs/format/tile_record.md): the reference does the same, number by number.
#pragma once

#include "simd/half_vector.hpp"

namespace kvarn {
namespace {

void halves_to_floats(const void* halves, std::size_t count, float* floats) {
  const auto* from = static_cast<const unsigned char*>(halves);
  for (std::size_t i = 0; i < count; i += kWidth) store(load_halves(from + 2 * i), floats + i);
}

KVARN_INLINE void store_bounded_halves(F32 value, HalfBits* halves) {
  const F32 below = select(value > kHalfMax, splat(kHalfMax), value);
  store_halves(select(below < -kHalfMax, splat(-kHalfMax), below), halves);
}

void floats_to_halves(const float* floats, std::size_t count, HalfBits* halves) {
  for (std::size_t i = 0; i < count; i += kWidth) store_bounded_halves(load(floats + i), halves + i);
}

bool bfloats_to_halves(const void* bfloats, std::size_t count, HalfBits* halves) {
  const auto* from = static_cast<const unsigned char*>(bfloats);
  U16 bad = {};
  for (std::size_t i = 0; i < count; i += kWidth) {
    const U16 upper = load_as<U16>(from + 2 * i);
    const U16 exponent = upper & static_cast<std::uint16_t>(0x7F80);
    bad |= reinterpret_cast<U16>(exponent == static_cast<std::uint16_t>(0x7F80));
    store_bounded_halves(float_of(__builtin_convertvector(upper, U32) << 16), halves + i);
  }
  std::uint16_t any = 0;
  for (int i = 0; i < kWidth; ++i) any = static_cast<std::uint16_t>(any | bad[i]);
  return any == 0;
}

void halves_to_bfloats(const HalfBits* halves, std::size_t count, void* bfloats) {
  auto* to = static_cast<unsigned char*>(bfloats);
  for (std::size_t i = 0; i < count; i += kWidth) {
    const U32 bits = bits_of(load_halves(halves + i));
    const U16 upper = __builtin_convertvector((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16, U16);
    __builtin_memcpy(to + 2 * i, &upper, sizeof upper);
  }
}

bool all_finite(const void* halves, std::size_t count) {
  const auto* from = static_cast<const unsigned char*>(halves);
  U16 bad = {};
  for (std::size_t i = 0; i < count; i += kWidth) {
    const U16 exponent = load_as<U16>(from + 2 * i) & static_cast<std::uint16_t>(0x7C00);
    bad |= reinterpret_cast<U16>(exponent == static_cast<std::uint16_t>(0x7C00));
  }
  std::uint16_t any = 0;
  for (int i = 0; i < kWidth; ++i) any = static_cast<std::uint16_t>(any | bad[i]);
  return any == 0;
}

// The sum of term(x) over a row.
template <class Term>
KVARN_INLINE float sum_row(const float* row, std::size_t lanes, Term term) {
  F32 partial[kPartialVectors] = {};
  for (std::size_t lane = 0; lane < lanes; lane += kPartials) {
    unroll<kPartialVectors>([&](auto i) { partial[i.value] += term(load(row + lane + i.value * kWidth)); });
  }
  return sum_partials(partial);
}

float sum_of_squares(const float* tile, std::size_t rows, std::size_t lanes) {
  float total = 0.0f;
  for (std::size_t row = 0; row < rows; ++row) {
    total += sum_row(tile + row * lanes, lanes, [](F32 x) { return x * x; });
  }
  return total;
}

void scale_values(float* values, std::size_t count, float factor) {
  for (std::size_t i = 0; i < count; i += kWidth) store(load(values + i) * splat(factor), values + i);
}

void row_deviations(const float* tile, std::size_t rows, std::size_t lanes, float* deviations) {
  for (std::size_t row = 0; row < rows; ++row) {
    const float* values = tile + row * lanes;
    const float mean = sum_row(values, lanes, [](F32 x) { return x; }) / static_cast<float>(lanes);
    const float squares = sum_row(values, lanes, [mean](F32 x) {
      const F32 distance = x - splat(mean);
      return distance * distance;
    });
    deviations[row] = __builtin_sqrtf(squares / static_cast<float>(lanes - 1));
  }
}

// Calls block(Index<Vectors>{}, lane) for as many vectors of lanes at once as fit, then for one at a time.
template <int Vectors, class Block>
KVARN_INLINE void in_lane_blocks(std::size_t lanes, Block&& block) {
  constexpr std::size_t kBlock = std::size_t{Vectors} * kWidth;
  std::size_t lane = 0;
  for (; lane + kBlock <= lanes; lane += kBlock) block(Index<Vectors>{}, lane);
  for (; lane < lanes; lane += kWidth) block(Index<1>{}, lane);
}

template <int Vectors>
void lane_deviations_block(const float* tile, std::size_t rows, std::size_t lanes, float* deviations) {
  F32 mean[Vectors] = {};
  for (std::size_t row = 0; row < rows; ++row) {
    unroll<Vectors>([&](auto i) { mean[i.value] += load(tile + row * lanes + i.value * kWidth); });
  }
  unroll<Vectors>([&](auto i) { mean[i.value] /= splat(static_cast<float>(rows)); });
  F32 squares[Vectors] = {};
  for (std::size_t row = 0; row < rows; ++row) {
    unroll<Vectors>([&](auto i) {
      const F32 distance = load(tile + row * lanes + i.value * kWidth) - mean[i.value];
      squares[i.value] += distance * distance;
    });
  }
  unroll<Vectors>([&](auto i) {
    for (int lane = 0; lane < kWidth; ++lane) {
      deviations[i.value * kWidth + lane] = __builtin_sqrtf(squares[i.value][lane] / static_cast<float>(rows - 1));
    }
  });
}

void lane_deviations(const float* tile, std::size_t rows, std::size_t lanes, float* deviations) {
  in_lane_blocks<4>(lanes, [&](auto vectors, std::size_t lane) {
    lane_deviations_block<vectors.value>(tile + lane, rows, lanes, deviations + lane);
  });
}

void normalize(const float* tile, std::size_t rows, std::size_t lanes, const float* lane_factor,
               const float* row_factor, float* out) {
  for (std::size_t row = 0; row < rows; ++row) {
    const F32 factor = splat(row_factor[row]);
    for (std::size_t lane = 0; lane < lanes; lane += kWidth) {
      store((load(tile + row * lanes + lane) * load(lane_factor + lane)) * factor, out + row * lanes + lane);
    }
  }
}

// Codes that are whole numbers, kWidth of them.
KVARN_INLINE void store_codes(F32 numbers, std::uint8_t* codes) {
  store_low_bytes(reinterpret_cast<U32>(__builtin_convertvector(numbers, I32)), codes);
}

struct Range {
  float low;
  float high;
};

KVARN_INLINE Range row_range(const float* row, std::size_t lanes) {
  F32 low = load(row);
  F32 high = low;
  for (std::size_t lane = kWidth; lane < lanes; lane += kWidth) {
    low = min(low, load(row + lane));
    high = max(high, load(row + lane));
  }
  return {smallest_lane(low) + 0.0f, largest_lane(high)};  // a minimum of zero counts as +0
}

void round_rows(const float* tile, std::size_t rows, std::size_t lanes, float top, std::uint8_t* codes, float* step,
                float* minimum) {
  constexpr float kRounder = 0x1.8p23f;  // adding and taking it away rounds to the nearest even whole number
  for (std::size_t row = 0; row < rows; ++row) {
    const float* values = tile + row * lanes;
    const Range range = row_range(values, lanes);
    const float wanted = (range.high - range.low) / top;
    minimum[row] = range.low;
    step[row] = wanted < 1e-10f ? 1e-10f : wanted;
    for (std::size_t lane = 0; lane < lanes; lane += kWidth) {
      const F32 exact = (load(values + lane) - splat(range.low)) / splat(step[row]);
      const F32 code = max(min((exact + kRounder) - kRounder, splat(top)), F32{});
      store_codes(code, codes + row * lanes + lane);
    }
  }
}

}  // namespace
}  // namespace kvarn
