// The fields of records, of either version, as single-precision numbers.
#pragma once

#include "format/byte_fields.hpp"
#include "kernels/normalize-inl.hpp"

namespace kvarn {
namespace {

template <int FractionBits>
void read_byte_scales(const std::uint8_t* bytes, std::size_t count, std::uint32_t least, float* scales) {
  for (std::size_t i = 0; i < count; i += kWidth) {
    store(float_of((__builtin_convertvector(load_as<U8>(bytes + i), U32) << (23 - FractionBits)) + least), scales + i);
  }
}

void read_byte_fields(const TileShape& shape, const std::uint8_t* record, const FieldArrays& fields) {
  constexpr ByteScale kAnyRow = row_byte_scale(4);
  const std::uint8_t* middles = record + row_zero_offset(shape);
  const F32 unit = splat(middle_unit(shape.bits));
  const F32 half_range = splat(static_cast<float>((1u << shape.bits) - 1u) * 0.5f);
  read_byte_scales<kAnyRow.fraction_bits>(record, shape.rows, least_scale_bits(row_byte_scale(shape.bits)),
                                          fields.row_scale);
  for (std::size_t row = 0; row < shape.rows; row += kWidth) {
    const F32 middle = to_float(__builtin_convertvector(load_as<I8>(middles + row), I32));
    store(load(fields.row_scale + row) * (middle * unit - half_range), fields.row_zero + row);
  }
  read_byte_scales<kLaneByteScale.fraction_bits>(record + lane_scale_offset(shape), shape.lanes,
                                                 least_scale_bits(kLaneByteScale), fields.lane_scale);
}

void read_fields(const TileShape& shape, const std::uint8_t* record, const FieldArrays& fields) {
  if (shape.version == RecordVersion::kBytes) return read_byte_fields(shape, record, fields);
  halves_to_floats(record + row_scale_offset(shape), shape.rows, fields.row_scale);
  halves_to_floats(record + row_zero_offset(shape), shape.rows, fields.row_zero);
  halves_to_floats(record + lane_scale_offset(shape), shape.lanes, fields.lane_scale);
}

}  // namespace
}  // namespace kvarn
