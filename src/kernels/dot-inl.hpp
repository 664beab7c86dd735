// Multiply-accumulate of folded vectors with the codes of a tile, in integers: the row scales are folded into the
// vector, the vector is quantized to 8-bit digits, and one integer dot instruction multiplies four rows of 16 lanes.
#pragma once

#include "kernels/codes-inl.hpp"
#include "simd/integer_dot.hpp"

namespace kvarn {
namespace {

// What quantizing a vector may leave, against the sum of the squared vector: a twentieth of what the codes lost
// already. A code is off by a variance of 1/12 and varies itself by about ((2^b - 1) / 5.3)^2; a rest that all rows
// share meets the mean of a lane's codes instead, which lies within half of that deviation of the middle code.
KVARN_INLINE float digit_tolerance(std::uint32_t bits) {
  const auto top = static_cast<float>((1u << bits) - 1u);
  return 0.1f / (top * top);
}

constexpr float kSmallestFolded = 1e-30f;  // below, a vector counts as zero: its unit would be subnormal
constexpr float kLargestDigit = 127.0f;

// Adding it rounds to the nearest even whole number, which is what the bits are then more than its own.
constexpr float kDigitRounder = 0x1.8p23f;
constexpr std::uint32_t kDigitRounderBits = 0x4B400000u;
constexpr std::size_t kDigitBlock = 4 * kWidth;  // digits that are packed together

// Sums of digits and of their squares, in any order since they are whole.
struct DigitSums {
  I32 digits;
  I32 squares;
};

// digits[r] = round(values[r] * inverse). values holds zeros from `rows` to the next multiple of kDigitBlock.
KVARN_INLINE DigitSums take_digits(const float* values, std::size_t rows, float inverse, std::int8_t* digits) {
  DotSum<7> sum, squares;
  for (std::size_t row = 0; row < rows; row += kDigitBlock) {
    I32 whole[4];
    unroll<4>([&](auto i) {
      const F32 shifted = load(values + row + i.value * kWidth) * splat(inverse) + splat(kDigitRounder);
      whole[i.value] = reinterpret_cast<I32>(bits_of(shifted)) - static_cast<std::int32_t>(kDigitRounderBits);
    });
    const U32 packed = pack_bytes(whole);
    const U32 magnitude = magnitudes(packed);
    sum.add(splat_bits(0x01010101u), packed);
    squares.add(magnitude, magnitude);
    sum.settle();
    squares.settle();
    if (rows - row >= kDigitBlock) {
      store(packed, digits + row);
    } else {
      __builtin_memcpy(digits + row, &packed, rows - row);
    }
  }
  return {sum.total(), squares.total()};
}

// The second level: what the first left. Returns the sum of what the second leaves.
float take_second_digits(const float* values, std::size_t rows, float unit, std::int8_t* digits) {
  const float step = unit / kSecondDigits;
  const F32 inverse = splat(1.0f / step);
  F32 rest[kPartialVectors] = {};
  for (std::size_t row = 0; row < rows; row += kPartials) {
    unroll<kPartialVectors>([&](auto i) {
      const std::size_t at = row + i.value * kWidth;
      const I32 first = load_signed_bytes(digits + at);
      const F32 left = load(values + at) - to_float(first) * splat(unit);
      const F32 shifted = left * inverse + splat(kDigitRounder);
      store_low_bytes(bits_of(shifted), digits + rows + at);
      rest[i.value] += left - (shifted - splat(kDigitRounder)) * splat(step);
    });
  }
  return sum_partials(rest);
}

// Up to four vectors at once: they share the loads of the row scales and the shuffles of their reductions.
template <int Count>
void fold_block(const float* a, std::size_t a_stride, const RowFold& fold, std::int8_t* digits, FoldedVector* folded) {
  const auto add = [](F32 x, F32 y) { return x + y; };
  const auto larger = [](F32 x, F32 y) { return max(x, y); };
  float values[Count * kMaxRows];
  const std::size_t stride = (fold.rows + kDigitBlock - 1) / kDigitBlock * kDigitBlock;
  for (std::size_t row = fold.rows; row < stride; row += kWidth) {
    unroll<Count>([&](auto k) { store(F32{}, values + k.value * stride + row); });
  }
  F32 zeros[4][kPartialVectors] = {}, totals[4][kPartialVectors] = {}, largest[4][kPartialVectors] = {};
  for (std::size_t row = 0; row < fold.rows; row += kPartials) {
    unroll<kPartialVectors>([&](auto i) {
      const std::size_t at = row + i.value * kWidth;
      const F32 scale = load(fold.row_scale + at);
      const F32 zero = load(fold.row_zero + at);
      unroll<Count>([&](auto k) {
        const F32 factor = load(a + k.value * a_stride + at);
        const F32 value = factor * scale;
        store(value, values + k.value * stride + at);
        zeros[k.value][i.value] += factor * zero;
        totals[k.value][i.value] += value;
        largest[k.value][i.value] = max(float_of(bits_of(value) & 0x7FFFFFFFu), largest[k.value][i.value]);
      });
    });
  }
  F32 joined[3][4];
  unroll<4>([&](auto k) {
    joined[0][k.value] = join_vectors(zeros[k.value], add);
    joined[1][k.value] = join_vectors(totals[k.value], add);
    joined[2][k.value] = join_vectors(largest[k.value], larger);
  });
  const F32 biases = halve_four(joined[0], add);
  const F32 sums = halve_four(joined[1], add);
  F32 tops = halve_four(joined[2], larger);
  const I32 vanishes = tops < kSmallestFolded;
  tops = select(vanishes, splat(1.0f), tops);
  const F32 units = tops / kLargestDigit;
  const F32 inverses = select(vanishes, F32{}, kLargestDigit / tops);
  F32 digit_sums[4] = {}, squares[4] = {};
  unroll<Count>([&](auto k) {
    const DigitSums whole = take_digits(values + k.value * stride, fold.rows, inverses[k.value * kFourStep],
                                        digits + 2 * k.value * fold.rows);
    digit_sums[k.value] = to_float(whole.digits);
    squares[k.value] = to_float(whole.squares);
  });
  // What the digits leave, in units: the sum exactly, the squares as rounding leaves them on the average.
  const F32 errors = sums - halve_four(digit_sums, add) * units;
  const F32 left = errors * inverses;
  const F32 spread = splat(static_cast<float>(fold.rows) / 12.0f);
  const I32 enough = left * left * 0.25f + spread <= halve_four(squares, add) * digit_tolerance(fold.bits);
  const float middle = static_cast<float>((1u << fold.bits) - 1u) * 0.5f;
  const F32 corrected = biases + errors * middle;
  unroll<Count>([&](auto k) {
    constexpr int kLane = k.value * kFourStep;
    folded[k.value] = {units[kLane], corrected[kLane], 1};
    if (enough[kLane] || vanishes[kLane]) return;
    const float rest =
        take_second_digits(values + k.value * stride, fold.rows, units[kLane], digits + 2 * k.value * fold.rows);
    folded[k.value] = {units[kLane], biases[kLane] + rest * middle, 2};
  });
}

void fold_vectors(const float* a, std::size_t a_stride, std::size_t count, const RowFold& fold, std::int8_t* digits,
                  FoldedVector* folded) {
  for (std::size_t first = 0; first < count; first += 4) {
    with_count<4>(count - first < 4 ? count - first : 4, [&](auto taken) {
      fold_block<decltype(taken)::value>(a + first * a_stride, a_stride, fold, digits + 2 * first * fold.rows,
                                         folded + first);
    });
  }
}

// Queries vectors with Vectors * kWidth lanes from `lane` on, all sums in registers.
template <int Bits, int Queries, int Vectors>
void dot_block(const CodeGroups<Bits>& groups, const DotVector* vectors, std::size_t lane, const float* lane_scale) {
  using Sum = DotSum<Bits>;
  constexpr int kSettle = Sum::kAddsBeforeSettle;
  Sum sums[Queries][Vectors];
  const std::int8_t* digits[Queries];
  unroll<Queries>([&](auto q) { digits[q.value] = vectors[q.value].digits; });
  const auto lanes = groups.template lanes<Vectors>(lane);
  const auto settle = [&]() __attribute__((always_inline)) {
    unroll<Queries>([&](auto q) { unroll<Vectors>([&](auto v) { sums[q.value][v.value].settle(); }); });
  };
  for (std::size_t unit = 0; unit < groups.units(); ++unit) {
    groups.fetch_ahead(lanes, unit);
    unroll<4>([&](auto group) __attribute__((always_inline)) {
      U32 codes[Vectors];
      groups.template read<group.value>(lanes, unit, codes);
      unroll<Queries>([&](auto q) __attribute__((always_inline)) {
        const U32 four = splat_bits(load_as<std::uint32_t>(digits[q.value] + unit * 16 + group.value * 4));
        unroll<Vectors>([&](auto v)
                            __attribute__((always_inline)) { sums[q.value][v.value].add(codes[v.value], four); });
      });
      if constexpr (kSettle > 0 && kSettle < 8 && (group.value + 1) % (kSettle < 4 ? kSettle : 4) == 0) settle();
    });
    if constexpr (kSettle >= 8) {
      if (unit % (kSettle / 4) == kSettle / 4 - 1) settle();
    }
  }
  if constexpr (kSettle >= 8) settle();
  unroll<Queries>([&](auto q) {
    const DotVector& vector = vectors[q.value];
    unroll<Vectors>([&](auto v) {
      const std::size_t at = lane + v.value * kWidth;
      const F32 sum = to_float(sums[q.value][v.value].total()) * splat(vector.unit) + splat(vector.bias);
      F32 value = sum * load(lane_scale + at);
      if (vector.adds) value = load(vector.out + at) + value;
      store(value, vector.out + at);
    });
  });
}

// Registers: Queries * Vectors sums, the codes, the digits; 32 of them on AVX-512 and NEON, 16 elsewhere.
constexpr int dot_vectors([[maybe_unused]] int queries) {
#if defined(__AVX512F__) || defined(__aarch64__)
  return queries > 4 ? 2 : 4;
#elif defined(__AVX2__)
  return queries > 4 ? 1 : 2;
#else
  return 1;
#endif
}

template <int Queries, int Bits>
void dot_lanes(const CodeGroups<Bits>& groups, const DotVector* vectors, std::size_t lanes, const float* lane_scale) {
  constexpr int kVectors = dot_vectors(Queries);
  std::size_t lane = 0;
  for (; lane + kVectors * kWidth <= lanes; lane += kVectors * kWidth) {
    dot_block<Bits, Queries, kVectors>(groups, vectors, lane, lane_scale);
  }
  if constexpr (kVectors * kWidth > static_cast<int>(kLaneBlock)) {
    for (; lane < lanes; lane += kWidth) dot_block<Bits, Queries, 1>(groups, vectors, lane, lane_scale);
  }
}

void dot_codes(const CodeTile& tile, const DotVector* vectors, std::size_t count, const float* lane_scale) {
  with_code_groups(tile, [&](const auto& groups) {
    while (count > 0) {
      const std::size_t taken = count >= 8 ? 8 : count >= 4 ? 4 : count;
      if (taken == 8) {
        dot_lanes<8>(groups, vectors, tile.lanes, lane_scale);
      } else {
        with_count<4>(
            taken, [&](auto queries) { dot_lanes<decltype(queries)::value>(groups, vectors, tile.lanes, lane_scale); });
      }
      vectors += taken;
      count -= taken;
    }
  });
}

}  // namespace
}  // namespace kvarn
