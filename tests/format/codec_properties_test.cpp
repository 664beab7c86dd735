// Properties of encode and decode over random shapes, widths, levels and values. RapidCheck prints its seed.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <cmath>

#include "format/record_check.hpp"
#include "reference/packing.hpp"
#include "reference/record.hpp"
#include "tile_samples.hpp"

namespace kvarn::reference {
namespace {

using testing::ExactRows;
using testing::Random;

// Elements and full-size ranges: the cases are as large from the first as in the end.
TileSpec any_spec() {
  const auto length = rc::gen::element(16u, 32u, 48u, 64u, 80u);
  return {*rc::gen::element(Axis::kKey, Axis::kValue), *length, *length, *rc::gen::element(8u, 6u, 5u, 4u, 3u, 2u)};
}

Level any_level() { return *rc::gen::element(Level::kOfficial, Level::kScaled); }

Level any_scaled_level() { return *rc::gen::element(Level::kScaled, Level::kFast, Level::kBest, Level::kPlain); }

Random any_random() { return Random(*rc::gen::resize(rc::kNominalSize, rc::gen::arbitrary<std::uint64_t>())); }

// Rows of very different kinds: a size over the whole range of half precision, uneven tokens, a few outliers.
ExactRows any_rows(const TileSpec& spec) {
  Random random = any_random();
  const int exponent = static_cast<int>(random.below(39)) - 24;
  const std::uint32_t spread = random.below(7);
  ExactRows rows = testing::uneven_rows(spec.tokens, spec.dim, spread, random.next());
  for (HalfBits& half : rows.values) {
    const float value = std::ldexp(half_to_float(half), exponent);
    half = float_to_half(std::clamp(value, -kHalfMax, kHalfMax));
  }
  const std::uint32_t outliers = random.below(4);
  for (std::uint32_t i = 0; i < outliers; ++i) {
    rows.at(random.below(spec.tokens), random.below(spec.dim)) = static_cast<HalfBits>(random.below(0x7C00));
  }
  return rows;
}

// The most a decoded value of one row and lane may differ from the rotated tile: half a step of the row, what the three
// half-precision fields lose (2^-11 relative, 2^-25 where subnormal), and about 16 single-precision roundings of values
// no larger than the row's largest.
float error_bound(const TileShape& shape, std::span<const std::uint8_t> record, std::uint32_t row, std::uint32_t lane) {
  constexpr float kUnit = 0x1p-11f * 1.001f;
  const auto field = [&](std::size_t offset, std::uint32_t index) {
    return std::fabs(half_to_float(load_half(record, offset, index)));
  };
  const float scale = field(row_scale_offset(shape), row);
  const float zero = field(row_zero_offset(shape), row);
  const float lane_scale = field(lane_scale_offset(shape), lane);
  const float scale_error = std::max(scale * kUnit, 0x1p-25f);
  const float zero_error = std::max(zero * kUnit, 0x1p-25f);
  const float code = static_cast<float>(load_code(shape, record, row, lane));
  const float top = static_cast<float>((1u << shape.bits) - 1);
  const float largest = top * (scale + scale_error) + zero + zero_error;
  const float step = (scale + scale_error) / 2 + code * scale_error + zero_error;
  return lane_scale * (1 + kUnit) * (step + (code * scale + zero) * kUnit + largest * 16 * 0x1p-24f);
}

RC_GTEST_PROP(CodecProperties, DecodedValues_AreWithinTheBoundOfTheirRow, ()) {
  const TileSpec spec = any_spec();
  const ExactRows rows = any_rows(spec);
  const Result<std::vector<std::uint8_t>> record = encode(spec, any_level(), rows.pointers());
  if (record.status() == Status::kOutOfRange) RC_DISCARD("does not fit");
  RC_ASSERT(record.ok());
  const TileShape shape = shape_of(spec);
  const FloatTile exact = rotated_tile(spec, rows.pointers());
  const FloatTile decoded = decode_rotated(shape, record.value());
  for (std::uint32_t row = 0; row < shape.rows; ++row) {
    for (std::uint32_t lane = 0; lane < shape.lanes; ++lane) {
      const float distance = std::fabs(decoded.at(row, lane) - exact.at(row, lane));
      RC_ASSERT(distance <= error_bound(shape, record.value(), row, lane));
    }
  }
}

RC_GTEST_PROP(CodecProperties, Record_IsValidWithSpareBitsZero, ()) {
  const TileSpec spec = any_spec();
  const ExactRows rows = any_rows(spec);
  const Result<std::vector<std::uint8_t>> record = encode(spec, any_level(), rows.pointers());
  if (record.status() == Status::kOutOfRange) RC_DISCARD("does not fit");
  RC_ASSERT(validate_record(shape_of(spec), record.value()) == Status::kOk);
}

RC_GTEST_PROP(CodecProperties, ScaledLevels_NeverRefuseFiniteRows, ()) {
  const TileSpec spec = any_spec();
  RC_ASSERT(encode(spec, any_scaled_level(), any_rows(spec).pointers()).ok());
}

TileSpec with_byte_fields(TileSpec spec) {
  spec.version = RecordVersion::kBytes;
  return spec;
}

RC_GTEST_PROP(CodecProperties, FieldsOfOneByte_NeverRefuseFiniteRows, ()) {
  const TileSpec spec = with_byte_fields(any_spec());
  const auto record = encode(spec, *rc::gen::element(Level::kFast, Level::kBest), any_rows(spec).pointers());
  RC_ASSERT(record.ok());
  RC_ASSERT(record.value().size() == record_bytes(shape_of(spec)));
}

RC_GTEST_PROP(CodecProperties, FieldsOfOneByte_AreForLevelsThatSearch, ()) {
  const TileSpec spec = with_byte_fields(any_spec());
  const Level level = *rc::gen::element(Level::kOfficial, Level::kScaled, Level::kPlain);
  RC_ASSERT(encode(spec, level, any_rows(spec).pointers()).status() == Status::kInvalidArgument);
}

// Rotating back keeps the length of a token's error; the final rounding adds at most 2^-11 of each channel (2^-25 below
// 2^-14), and saturation only moves values towards exact ones.
RC_GTEST_PROP(CodecProperties, TokenErrors_KeepTheirLengthThroughTheRotation, ()) {
  const TileSpec spec = any_spec();
  const ExactRows rows = any_rows(spec);
  const Result<std::vector<std::uint8_t>> record = encode(spec, any_scaled_level(), rows.pointers());
  RC_ASSERT(record.ok());
  const FloatTile exact = rotated_tile(spec, rows.pointers());
  const FloatTile decoded = decode_rotated(shape_of(spec), record.value());
  const std::vector<HalfBits> halves = decode_half_rows(spec, record.value());
  for (std::uint32_t token = 0; token < spec.tokens; ++token) {
    double rotated = 0.0;
    double plain = 0.0;
    double slack = 0.0;
    for (std::uint32_t channel = 0; channel < spec.dim; ++channel) {
      const std::uint32_t row = spec.axis == Axis::kKey ? channel : token;
      const std::uint32_t lane = spec.axis == Axis::kKey ? token : channel;
      const double value = half_to_float(halves[std::size_t{token} * spec.dim + channel]);
      rotated += std::pow(decoded.at(row, lane) - exact.at(row, lane), 2.0);
      plain += std::pow(value - half_to_float(rows.at(token, channel)), 2.0);
      slack += std::pow(std::max(std::fabs(value) * 0x1p-11, 0x1p-25), 2.0);
      slack += std::pow(static_cast<double>(exact.at(row, lane)) * 0x1p-20, 2.0);
    }
    RC_ASSERT(std::sqrt(plain) <= std::sqrt(rotated) * (1 + 0x1p-20) + std::sqrt(slack) * 1.01);
  }
}

// Any bytes of the right size decode without a crash; valid ones to finite values.
RC_GTEST_PROP(CodecProperties, RandomBytes_DecodeToSomethingAndValidOnesToFiniteValues, ()) {
  const TileSpec spec = any_spec();
  Random random = any_random();
  std::vector<std::uint8_t> record(record_bytes(shape_of(spec)));
  for (std::uint8_t& byte : record) byte = static_cast<std::uint8_t>(random.below(256));
  RC_ASSERT(decode_half_rows(spec, record).size() == std::size_t{spec.tokens} * spec.dim);
  for (std::size_t high_byte = 1; high_byte < codes_offset(shape_of(spec)); high_byte += 2) record[high_byte] &= 0xFB;
  RC_ASSERT(record_fields_finite(shape_of(spec), record));
  for (const HalfBits half : decode_half_rows(spec, record)) RC_ASSERT((half & 0x7C00) != 0x7C00);
}

RC_GTEST_PROP(CodecProperties, RandomFieldsOfOneByte_DecodeToFiniteValues, ()) {
  const TileSpec spec = with_byte_fields(any_spec());
  Random random = any_random();
  std::vector<std::uint8_t> record(record_bytes(shape_of(spec)));
  for (std::uint8_t& byte : record) byte = static_cast<std::uint8_t>(random.below(256));
  for (const HalfBits half : decode_half_rows(spec, record)) RC_ASSERT((half & 0x7C00) != 0x7C00);
}

}  // namespace
}  // namespace kvarn::reference
