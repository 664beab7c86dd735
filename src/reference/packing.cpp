// Bytes by hand, so that neither the machine's byte order nor an alignment matters.
#include "reference/packing.hpp"

#include <cmath>

namespace kvarn::reference {
namespace {

// Offset of the lane's block of planes in the record.
std::size_t block_offset(const TileShape& shape, std::uint32_t lane) {
  return codes_offset(shape) + lane / kLaneBlock * lane_block_bytes(shape);
}

std::uint32_t low_bits(std::uint32_t value, std::uint32_t bits) { return value & ((1u << bits) - 1u); }

}  // namespace

HalfBits load_half(std::span<const std::uint8_t> record, std::size_t offset, std::uint32_t index) {
  const std::size_t at = offset + std::size_t{2} * index;
  return static_cast<HalfBits>(record[at] | record[at + 1] << 8);
}

void store_field(const TileShape& shape, std::span<std::uint8_t> record, std::size_t offset, std::uint32_t index,
                 std::uint16_t value) {
  const std::size_t at = offset + field_bytes(shape) * index;
  record[at] = static_cast<std::uint8_t>(value & 0xFFu);
  if (shape.version == RecordVersion::kHalves) record[at + 1] = static_cast<std::uint8_t>(value >> 8);
}

float byte_scale(const ByteScaleKind& kind, std::uint8_t byte) {
  const int parts = 1 << kind.fraction_bits;
  const float rest = static_cast<float>(byte % parts) / static_cast<float>(parts);
  return std::ldexp(1.0f + rest, kind.least_exponent + byte / parts);
}

float byte_middle_steps(std::uint32_t bits, std::uint8_t middle) {
  const auto size = static_cast<std::uint8_t>(middle % 128);
  const float steps = std::ldexp(byte_scale(kByteMiddleLaw, size) - 1.0f, byte_middle_exponent(bits));
  return middle < 128 ? steps : -steps;
}

float byte_row_zero(std::uint32_t bits, float scale, std::uint8_t middle) {
  const float half_range = static_cast<float>((1u << bits) - 1u) * 0.5f;
  return scale * (byte_middle_steps(bits, middle) - half_range);
}

std::uint32_t load_code(const TileShape& shape, std::span<const std::uint8_t> record, std::uint32_t row,
                        std::uint32_t lane) {
  const CodePlanes planes = code_planes(shape.bits);
  const std::size_t block = block_offset(shape, lane);
  const CodePlace first = code_place(planes.first_bits, row, lane);
  const std::uint32_t high = low_bits(record[block + first.byte] >> first.shift, planes.first_bits);
  if (planes.second_bits == 0) return high;
  const std::size_t second_plane = block + plane_bytes(shape.rows, planes.first_bits);
  const CodePlace second = code_place(planes.second_bits, row, lane);
  const std::uint32_t low = low_bits(record[second_plane + second.byte] >> second.shift, planes.second_bits);
  return high << planes.second_bits | low;
}

void store_code(const TileShape& shape, std::span<std::uint8_t> record, std::uint32_t row, std::uint32_t lane,
                std::uint32_t code) {
  const CodePlanes planes = code_planes(shape.bits);
  const std::size_t block = block_offset(shape, lane);
  const CodePlace first = code_place(planes.first_bits, row, lane);
  record[block + first.byte] |= static_cast<std::uint8_t>((code >> planes.second_bits) << first.shift);
  if (planes.second_bits == 0) return;
  const std::size_t second_plane = block + plane_bytes(shape.rows, planes.first_bits);
  const CodePlace second = code_place(planes.second_bits, row, lane);
  record[second_plane + second.byte] |= static_cast<std::uint8_t>(low_bits(code, planes.second_bits) << second.shift);
}

}  // namespace kvarn::reference
