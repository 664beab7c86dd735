// The reference codec on the inputs that break codecs: zeros, constants, largest and smallest values, NaN, infinity, an
// outlier; and the identities of folded scales.
#include <gtest/gtest.h>

#include <cmath>

#include "format/record_check.hpp"
#include "reference/packing.hpp"
#include "reference/record.hpp"
#include "tile_samples.hpp"

namespace kvarn::reference {
namespace {

using testing::constant_rows;
using testing::ExactRows;
using testing::normal_rows;
using testing::Random;

constexpr HalfBits kLargest = 0x7BFF;            // 65504
constexpr HalfBits kSmallestSubnormal = 0x0001;  // 2^-24

struct Case {
  Axis axis;
  std::uint32_t bits;
  Level level;
};

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const Axis axis : {Axis::kKey, Axis::kValue}) {
    for (const std::uint32_t bits : {8u, 6u, 5u, 4u, 3u, 2u}) {
      for (const Level level : {Level::kOfficial, Level::kScaled}) cases.push_back({axis, bits, level});
    }
  }
  return cases;
}

// The largest distance of a decoded value from its exact one; encoding must succeed and give a valid record.
float worst_distance(const TileSpec& spec, Level level, const ExactRows& rows) {
  const Result<std::vector<std::uint8_t>> record = encode(spec, level, rows.pointers());
  EXPECT_TRUE(record.ok()) << status_text(record.status());
  if (!record.ok()) return INFINITY;
  EXPECT_EQ(validate_record(shape_of(spec), record.value()), Status::kOk);
  const std::vector<HalfBits> decoded = decode_half_rows(spec, record.value());
  float worst = 0.0f;
  for (std::size_t i = 0; i < decoded.size(); ++i) {
    worst = std::max(worst, std::fabs(half_to_float(decoded[i]) - half_to_float(rows.values[i])));
  }
  return worst;
}

TEST(ReferenceCodec, Zeros_DecodeToZeros) {
  for (const Case& c : all_cases()) {
    EXPECT_EQ(worst_distance({c.axis, 32, 48, c.bits}, c.level, constant_rows(32, 48, 0)), 0.0f);
  }
}

TEST(ReferenceCodec, ZerosOfMixedSigns_GiveTheRecordOfPlusZeros) {
  Random random(1);
  ExactRows rows = constant_rows(32, 48, 0);
  for (HalfBits& half : rows.values) half = random.below(2) == 0 ? 0x0000 : 0x8000;
  for (const Case& c : all_cases()) {
    const TileSpec spec{c.axis, 32, 48, c.bits};
    const ExactRows plus = constant_rows(32, 48, 0);
    EXPECT_EQ(encode(spec, c.level, rows.pointers()).value(), encode(spec, c.level, plus.pointers()).value());
  }
}

// A constant c rotates to one channel of 8c and 63 zeros. Scale, zero and lane scale each lose at most 2^-11: with the
// final rounding below 2^-9 of the value. Not so a negative constant as a V row: zero is then the maximum, top code *
// scale + zero misses it by up to 2^-10 of 8|c| in 63 lanes alike, and rotating back adds these errors up in one
// channel: 63/8 times that.
TEST(ReferenceCodec, Constant_DecodesToTheRoundingOfTheFields) {
  for (const Case& c : all_cases()) {
    for (const float value : {1.0f, -0.3f, 117.0f}) {
      const float tolerance = c.axis == Axis::kValue && value < 0.0f ? 63 * 0x1p-10f : 0x1p-9f;
      EXPECT_LE(worst_distance({c.axis, 32, 64, c.bits}, c.level, constant_rows(32, 64, float_to_half(value))),
                std::fabs(value) * tolerance)
          << c.bits << " " << value;
    }
  }
}

// The largest values of both signs: kScaled always fits; kOfficial may refuse a field, never write an infinite one.
TEST(ReferenceCodec, LargestValues_FitAtTheScaledLevelAndNeverGiveInfiniteFields) {
  for (const Case& c : all_cases()) {
    for (const std::uint32_t tokens : {16u, 128u}) {
      Random random(tokens);
      for (const bool mixed_signs : {false, true}) {
        ExactRows rows = constant_rows(tokens, 128, kLargest);
        for (HalfBits& half : rows.values) half |= mixed_signs && random.below(2) == 0 ? 0x8000 : 0;
        const TileSpec spec{c.axis, tokens, 128, c.bits};
        const Result<std::vector<std::uint8_t>> record = encode(spec, c.level, rows.pointers());
        if (!record.ok()) {
          EXPECT_EQ(c.level, Level::kOfficial);
          EXPECT_EQ(record.status(), Status::kOutOfRange);
          continue;
        }
        EXPECT_EQ(validate_record(shape_of(spec), record.value()), Status::kOk);
        for (const HalfBits half : decode_half_rows(spec, record.value())) ASSERT_NE(half & 0x7C00, 0x7C00);
      }
    }
  }
}

// Subnormal rows at 8 bits and the scaled level come back within half a step of the rounded range: the tile's exponent
// keeps the record's own fields out of the subnormal range that would swallow them.
TEST(ReferenceCodec, Subnormals_KeepTheirPrecisionAtTheScaledLevel) {
  Random random(2);
  ExactRows rows = constant_rows(32, 64, 0);
  for (HalfBits& half : rows.values) half = static_cast<HalfBits>(random.below(64) | random.below(2) << 15);
  const float largest = 63.0f * 0x1p-24f;
  for (const Axis axis : {Axis::kKey, Axis::kValue}) {
    EXPECT_LE(worst_distance({axis, 32, 64, 8}, Level::kScaled, rows), largest * 0.05f);
    EXPECT_LE(worst_distance({axis, 32, 64, 8}, Level::kScaled, constant_rows(32, 64, kSmallestSubnormal)), 0.0f);
  }
}

TEST(ReferenceCodec, NaNAndInfinity_AreRefusedWhereverTheyAre) {
  for (const Case& c : all_cases()) {
    const TileSpec spec{c.axis, 16, 32, c.bits};
    for (const HalfBits bad : {HalfBits{0x7C00}, HalfBits{0xFC00}, HalfBits{0x7E00}, HalfBits{0x7C01}}) {
      for (const std::size_t at : {std::size_t{0}, std::size_t{100}, std::size_t{511}}) {
        ExactRows rows = normal_rows(16, 32, 1.0f, 9);
        rows.values[at] = bad;
        EXPECT_EQ(encode(spec, c.level, rows.pointers()).status(), Status::kNonFinite);
      }
    }
  }
}

TEST(ReferenceCodec, ShapesAndRowCountsOutsideTheContract_AreRefused) {
  const ExactRows rows = normal_rows(32, 48, 1.0f, 4);
  const std::vector<const HalfBits*> pointers = rows.pointers();
  EXPECT_EQ(encode({Axis::kKey, 32, 48, 7}, Level::kScaled, pointers).status(), Status::kInvalidArgument);
  EXPECT_EQ(encode({Axis::kKey, 32, 40, 4}, Level::kScaled, pointers).status(), Status::kInvalidArgument);
  EXPECT_EQ(encode({Axis::kKey, 16, 48, 4}, Level::kScaled, pointers).status(), Status::kInvalidArgument);
  EXPECT_TRUE(encode({Axis::kKey, 32, 48, 4}, Level::kScaled, pointers).ok());
}

// An outlier 1000 times the rest is one token's: its lane (K) or row (V) takes the size, the other tokens keep an error
// of the order they have without it (4 bits: 0.011 of their energy; 0.1 leaves room for the lower clamp of lane
// scales).
TEST(ReferenceCodec, OneOutlier_LeavesTheOtherTokensAlone) {
  ExactRows rows = normal_rows(64, 64, 1.0f, 6);
  rows.at(20, 30) = float_to_half(1000.0f);
  for (const Axis axis : {Axis::kKey, Axis::kValue}) {
    const TileSpec spec{axis, 64, 64, 4};
    const std::vector<std::uint8_t> record = encode(spec, Level::kOfficial, rows.pointers()).value();
    const std::vector<HalfBits> decoded = decode_half_rows(spec, record);
    double error = 0.0;
    double energy = 0.0;
    for (std::size_t i = 0; i < decoded.size(); ++i) {
      if (i / 64 == 20) continue;
      const double exact = half_to_float(rows.values[i]);
      error += std::pow(half_to_float(decoded[i]) - exact, 2.0);
      energy += exact * exact;
    }
    EXPECT_LT(error / energy, 0.1);
    EXPECT_NEAR(half_to_float(decoded[20 * 64 + 30]), 1000.0f, 50.0f);
  }
}

// y[l] = lane_scale * (sum of (a * row_scale) * code + sum of a * row_zero) is the product with the decoded value.
TEST(ReferenceCodec, FoldingScalesIntoTheVector_EqualsScalingTheCodes) {
  Random random(8);
  for (const Case& c : all_cases()) {
    const TileSpec spec{c.axis, 48, 80, c.bits};
    const TileShape shape = shape_of(spec);
    const std::vector<std::uint8_t> record =
        encode(spec, c.level, normal_rows(48, 80, 1.0f, c.bits).pointers()).value();
    const FloatTile decoded = decode_rotated(shape, record);
    std::vector<double> a(shape.rows);
    for (double& value : a) value = random.near_normal();
    for (std::uint32_t lane = 0; lane < shape.lanes; ++lane) {
      double plain = 0.0;
      double folded = 0.0;
      double size = 0.0;
      for (std::uint32_t row = 0; row < shape.rows; ++row) {
        plain += a[row] * decoded.at(row, lane);
        folded += a[row] * half_to_float(load_half(record, row_scale_offset(shape), row)) *
                  load_code(shape, record, row, lane);
        folded += a[row] * half_to_float(load_half(record, row_zero_offset(shape), row));
        size += std::fabs(a[row]) * 8.0;
      }
      folded *= half_to_float(load_half(record, lane_scale_offset(shape), lane));
      ASSERT_NEAR(folded, plain, size * 0x1p-22);  // the decoded value is rounded to single precision three times
    }
  }
}

}  // namespace
}  // namespace kvarn::reference
