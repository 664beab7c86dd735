// Codes and fields to and from the bytes of a tile record, one value at a time.
// Part of the scalar truth that only tests link; the places of the codes are format/tile_record.hpp's.
#pragma once

#include <cstdint>
#include <span>

#include "base/half.hpp"
#include "format/tile_record.hpp"

namespace kvarn::reference {

// The fields of a record by index. Bytes are little-endian; record.size() = record_bytes(shape).
HalfBits load_half(std::span<const std::uint8_t> record, std::size_t offset, std::uint32_t index);
// Halves, or single bytes if the record's fields are such.
void store_field(const TileShape& shape, std::span<std::uint8_t> record, std::size_t offset, std::uint32_t index,
                 std::uint16_t value);

// A scale of one byte: 2^(least_exponent + whole) * (1 + rest / parts), where the byte is whole * parts + rest and
// parts is 2^fraction_bits.
struct ByteScaleKind {
  int fraction_bits;
  int least_exponent;
};
inline constexpr ByteScaleKind kByteLaneScale = {3, -16};
constexpr ByteScaleKind byte_row_scale(std::uint32_t bits) { return {5, -2 - static_cast<int>(bits)}; }
float byte_scale(const ByteScaleKind& kind, std::uint8_t byte);

// A middle is a sign and the scale that is one more than its distance from zero; one distance is 2^exponent steps.
inline constexpr ByteScaleKind kByteMiddleLaw = {4, 0};
inline constexpr std::uint8_t kByteLargestMiddle = 127;
constexpr int byte_middle_exponent(std::uint32_t bits) { return (bits > 4 ? static_cast<int>(bits) : 4) - 8; }
// How many steps a middle lies from zero, and the zero that it stands for.
float byte_middle_steps(std::uint32_t bits, std::uint8_t middle);
float byte_row_zero(std::uint32_t bits, float scale, std::uint8_t middle);

// The code of one row and lane, put together from its planes.
std::uint32_t load_code(const TileShape& shape, std::span<const std::uint8_t> record, std::uint32_t row,
                        std::uint32_t lane);

// Adds a code to a record whose bits for it are still zero. code < 2^shape.bits.
void store_code(const TileShape& shape, std::span<std::uint8_t> record, std::uint32_t row, std::uint32_t lane,
                std::uint32_t code);

}  // namespace kvarn::reference
