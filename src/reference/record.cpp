// Steps 1 to 7 of the format page's encoder arithmetic, put together.
#include "reference/record.hpp"

#include <algorithm>
#include <cmath>

#include "reference/packing.hpp"
#include "reference/rotation.hpp"
#include "reference/rounding.hpp"
#include "reference/varn.hpp"

namespace kvarn::reference {
namespace {

// The fields of a record before they are written.
struct Fields {
  std::vector<std::uint16_t> row_scale;
  std::vector<std::uint16_t> row_zero;
  std::vector<std::uint16_t> lane_scale;
};

// The exponent of the whole tile is split: lanes take what keeps their scales normal, rows the rest.
Fields fold_scales(const Balance& balance, const RoundedTile& rounded, int exponent) {
  const int lane_exponent = std::clamp(exponent, -10, 10);
  const float lane_factor = std::ldexp(1.0f, lane_exponent);
  const float row_factor = std::ldexp(1.0f, exponent - lane_exponent);
  Fields fields;
  for (std::size_t row = 0; row < rounded.scale.size(); ++row) {
    fields.row_scale.push_back(float_to_half((balance.row_scale[row] * rounded.scale[row]) * row_factor));
    fields.row_zero.push_back(float_to_half((balance.row_scale[row] * rounded.zero[row]) * row_factor));
  }
  for (const float scale : balance.lane_scale) fields.lane_scale.push_back(float_to_half(scale * lane_factor));
  return fields;
}

bool all_finite(std::span<const HalfBits> values) {
  return std::all_of(values.begin(), values.end(), [](HalfBits half) { return (half & 0x7C00u) != 0x7C00u; });
}

std::vector<std::uint8_t> write_record(const TileShape& shape, const Fields& fields,
                                       const std::vector<std::uint8_t>& codes) {
  std::vector<std::uint8_t> record(record_bytes(shape), std::uint8_t{0});
  for (std::uint32_t row = 0; row < shape.rows; ++row) {
    store_field(shape, record, row_scale_offset(shape), row, fields.row_scale[row]);
    store_field(shape, record, row_zero_offset(shape), row, fields.row_zero[row]);
    for (std::uint32_t lane = 0; lane < shape.lanes; ++lane) {
      store_code(shape, record, row, lane, codes[std::size_t{row} * shape.lanes + lane]);
    }
  }
  for (std::uint32_t lane = 0; lane < shape.lanes; ++lane) {
    store_field(shape, record, lane_scale_offset(shape), lane, fields.lane_scale[lane]);
  }
  return record;
}

// A tile brought to a root mean square of 1 to 2, and the power of two that it was divided by.
struct ScaledTile {
  const FloatTile& tile;
  int exponent;
};

SearchedCodes searched(const TileSpec& spec, const ScaledTile& scaled, Level level, const Moments* moments) {
  const bool is_key = spec.axis == Axis::kKey;
  const std::optional<SecondMoment> moment =
      level == Level::kBest && is_key && moments != nullptr ? second_moment(*moments, spec.dim) : std::nullopt;
  const bool refines = level == Level::kBest && (!is_key || moment.has_value());
  SearchOrder order = {
      spec.bits, scaled.exponent, nullptr, {}, refines, level == Level::kPlain, spec.version == RecordVersion::kBytes};
  if (moment.has_value()) {
    order.moment = &*moment;
    order.importance = lane_importance(*moments, scaled.tile, scaled.exponent);
  }
  return search(scaled.tile, order);
}

HalfBits saturated_half(float value) { return float_to_half(std::clamp(value, -kHalfMax, kHalfMax)); }

// What the fields of a row say.
struct RowLine {
  float scale;
  float zero;
};

RowLine line_of_row(const TileShape& shape, std::span<const std::uint8_t> record, std::uint32_t row) {
  if (shape.version == RecordVersion::kHalves) {
    return {half_to_float(load_half(record, row_scale_offset(shape), row)),
            half_to_float(load_half(record, row_zero_offset(shape), row))};
  }
  const float scale = byte_scale(byte_row_scale(shape.bits), record[row_scale_offset(shape) + row]);
  return {scale, byte_row_zero(shape.bits, scale, record[row_zero_offset(shape) + row])};
}

float scale_of_lane(const TileShape& shape, std::span<const std::uint8_t> record, std::uint32_t lane) {
  if (shape.version == RecordVersion::kBytes)
    return byte_scale(kByteLaneScale, record[lane_scale_offset(shape) + lane]);
  return half_to_float(load_half(record, lane_scale_offset(shape), lane));
}

}  // namespace

TileShape shape_of(const TileSpec& spec) {
  return spec.axis == Axis::kKey ? TileShape{spec.dim, spec.tokens, spec.bits, spec.version}
                                 : TileShape{spec.tokens, spec.dim, spec.bits, spec.version};
}

FloatTile rotated_tile(const TileSpec& spec, std::span<const HalfBits* const> rows) {
  const TileShape shape = shape_of(spec);
  FloatTile tile(shape.rows, shape.lanes);
  std::vector<float> channels(spec.dim);
  for (std::uint32_t token = 0; token < spec.tokens; ++token) {
    for (std::uint32_t channel = 0; channel < spec.dim; ++channel) {
      channels[channel] = half_to_float(rows[token][channel]);
    }
    rotate(channels);
    for (std::uint32_t channel = 0; channel < spec.dim; ++channel) {
      (spec.axis == Axis::kKey ? tile.at(channel, token) : tile.at(token, channel)) = channels[channel];
    }
  }
  return tile;
}

Result<std::vector<std::uint8_t>> encode(const TileSpec& spec, Level level, std::span<const HalfBits* const> rows,
                                         const Moments* moments) {
  const TileShape shape = shape_of(spec);
  const bool level_fits = spec.version == RecordVersion::kHalves || level == Level::kFast || level == Level::kBest;
  if (validate(shape) != Status::kOk || !level_fits || rows.size() != spec.tokens) return Status::kInvalidArgument;
  for (const HalfBits* row : rows) {
    if (!all_finite({row, spec.dim})) return Status::kNonFinite;
  }
  FloatTile tile = rotated_tile(spec, rows);
  const int exponent = level == Level::kOfficial ? 0 : scale_exponent(tile);
  const float unit = std::ldexp(1.0f, -exponent);
  for (float& value : tile.values) value *= unit;
  if (level != Level::kOfficial && level != Level::kScaled) {
    const SearchedCodes found = searched(spec, {tile, exponent}, level, moments);
    return write_record(shape, {found.row_scale, found.row_zero, found.lane_scale}, found.codes);
  }
  const Balance balance = find_balance(tile);
  const RoundedTile rounded = round_rows(apply_balance(tile, balance), spec.bits);
  const Fields fields = fold_scales(balance, rounded, exponent);
  if (!all_finite(fields.row_scale) || !all_finite(fields.row_zero) || !all_finite(fields.lane_scale)) {
    return Status::kOutOfRange;
  }
  return write_record(shape, fields, rounded.codes);
}

FloatTile decode_rotated(const TileShape& shape, std::span<const std::uint8_t> record) {
  FloatTile tile(shape.rows, shape.lanes);
  for (std::uint32_t row = 0; row < shape.rows; ++row) {
    const RowLine line = line_of_row(shape, record, row);
    for (std::uint32_t lane = 0; lane < shape.lanes; ++lane) {
      const float code = static_cast<float>(load_code(shape, record, row, lane));
      tile.at(row, lane) = (code * line.scale + line.zero) * scale_of_lane(shape, record, lane);
    }
  }
  return tile;
}

std::vector<float> decode_rows(const TileSpec& spec, std::span<const std::uint8_t> record) {
  const FloatTile tile = decode_rotated(shape_of(spec), record);
  std::vector<float> rows(std::size_t{spec.tokens} * spec.dim);
  for (std::uint32_t token = 0; token < spec.tokens; ++token) {
    const std::span<float> channels = std::span(rows).subspan(std::size_t{token} * spec.dim, spec.dim);
    for (std::uint32_t channel = 0; channel < spec.dim; ++channel) {
      channels[channel] = spec.axis == Axis::kKey ? tile.at(channel, token) : tile.at(token, channel);
    }
    rotate(channels);
  }
  return rows;
}

std::vector<HalfBits> decode_half_rows(const TileSpec& spec, std::span<const std::uint8_t> record) {
  std::vector<HalfBits> halves;
  for (const float value : decode_rows(spec, record)) halves.push_back(saturated_half(value));
  return halves;
}

}  // namespace kvarn::reference
