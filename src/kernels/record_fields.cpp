#include "kernels/record_fields.hpp"

#include "format/byte_fields.hpp"
#include "kernels/kernel_table.hpp"

namespace kvarn {
namespace {

constexpr ByteFieldLaw law_of(const ByteScale& scale) { return {23 - scale.fraction_bits, least_scale_bits(scale)}; }

constexpr MiddleLaw middle_law(std::uint32_t bits) {
  return {law_of(kMiddleLaw), middle_unit(bits), static_cast<float>((1u << bits) - 1u) * 0.5f};
}

}  // namespace

void read_fields(const TileShape& shape, const std::uint8_t* record, const FieldArrays& fields) {
  const KernelTable& kernel = kernels();
  const std::uint8_t* lane_scales = record + lane_scale_offset(shape);
  const std::uint8_t* row_zeros = record + row_zero_offset(shape);
  if (shape.version == RecordVersion::kBytes) {
    kernel.bytes_to_scales(record + row_scale_offset(shape), shape.rows, law_of(row_byte_scale(shape.bits)),
                           fields.row_scale);
    kernel.middles_to_zeros(row_zeros, shape.rows, middle_law(shape.bits), fields.row_scale, fields.row_zero);
    kernel.bytes_to_scales(lane_scales, shape.lanes, law_of(kLaneByteScale), fields.lane_scale);
    return;
  }
  kernel.halves_to_floats(record + row_scale_offset(shape), shape.rows, fields.row_scale);
  kernel.halves_to_floats(row_zeros, shape.rows, fields.row_zero);
  kernel.halves_to_floats(lane_scales, shape.lanes, fields.lane_scale);
}

}  // namespace kvarn
