#include "kernels/record_fields.hpp"

#include "format/byte_fields.hpp"
#include "kernels/kernel_table.hpp"
#include "simd/vector.hpp"

namespace kvarn {
namespace {

// Fields are few: one copy in the vectors of the least instruction set does for all of them.
void read_byte_scales(const ByteScale& scale, const std::uint8_t* bytes, std::size_t count, float* scales) {
  for (std::size_t i = 0; i < count; i += kWidth) {
    const U32 fields = __builtin_convertvector(load_as<U8>(bytes + i), U32) << (23 - scale.fraction_bits);
    store(float_of(fields + least_scale_bits(scale)), scales + i);
  }
}

void read_byte_fields(const TileShape& shape, const std::uint8_t* record, const FieldArrays& fields) {
  read_byte_scales(row_byte_scale(shape.bits), record, shape.rows, fields.row_scale);
  read_byte_scales(kLaneByteScale, record + lane_scale_offset(shape), shape.lanes, fields.lane_scale);
  const std::uint8_t* middles = record + row_zero_offset(shape);
  const float half_range = static_cast<float>((1u << shape.bits) - 1u) * 0.5f;
  for (std::size_t row = 0; row < shape.rows; row += kWidth) {
    const U32 middle = __builtin_convertvector(load_as<U8>(middles + row), U32);
    const U32 size = (middle & kLargestMiddle) << (23 - kMiddleLaw.fraction_bits);
    const F32 distance = float_of(size + least_scale_bits(kMiddleLaw)) - splat(1.0f);
    const F32 steps = float_of(bits_of(distance * splat(middle_unit(shape.bits))) | (middle & kMiddleSign) << 24);
    const F32 zero = load(fields.row_scale + row) * (steps - splat(half_range));
    store(zero, fields.row_zero + row);
  }
}

}  // namespace

void read_fields(const TileShape& shape, const std::uint8_t* record, const FieldArrays& fields) {
  if (shape.version == RecordVersion::kBytes) return read_byte_fields(shape, record, fields);
  const KernelTable& kernel = kernels();
  kernel.halves_to_floats(record + row_scale_offset(shape), shape.rows, fields.row_scale);
  kernel.halves_to_floats(record + row_zero_offset(shape), shape.rows, fields.row_zero);
  kernel.halves_to_floats(record + lane_scale_offset(shape), shape.lanes, fields.lane_scale);
}

}  // namespace kvarn
