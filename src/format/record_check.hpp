// Validation of tile record bytes that come from outside (files, networks): decoding trusted bytes needs none of it.
// Sits beside tile_record.hpp; knows bytes only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.hpp"
#include "format/tile_record.hpp"

namespace kvarn {

// True if the half-precision fields [0, codes_offset) hold neither infinity nor NaN; fields of one byte cannot.
constexpr bool record_fields_finite(const TileShape& shape, std::span<const std::uint8_t> record) {
  if (shape.version == RecordVersion::kBytes) return true;
  for (std::size_t high_byte = 1; high_byte < codes_offset(shape); high_byte += 2) {
    if ((record[high_byte] & 0x7Cu) == 0x7Cu) return false;
  }
  return true;
}

// True if the bits of one plane that no row owns are zero. Rows are a multiple of 16, so only 1-bit planes have such
// bits: the upper half of every byte of the last chunk, when rows is an odd multiple of 16.
constexpr bool plane_spare_bits_zero(std::uint32_t rows, std::uint32_t plane_bits,
                                     std::span<const std::uint8_t> plane) {
  if (plane_bits == 0 || rows % rows_per_chunk(plane_bits) == 0) return true;
  const std::uint32_t used_bits = rows % rows_per_chunk(plane_bits) / kRowGroup * plane_bits;
  for (const std::uint8_t byte : plane.last(kChunkBytes)) {
    if (byte >> used_bits != 0) return false;
  }
  return true;
}

// kOk if the bytes are a record of this shape: every field finite, every spare bit zero. A valid record decodes to
// finite values. Errors: kInvalidArgument (shape, or record.size() is not record_bytes(shape)), kCorrupt.
constexpr Status validate_record(const TileShape& shape, std::span<const std::uint8_t> record) {
  if (validate(shape) != Status::kOk || record.size() != record_bytes(shape)) return Status::kInvalidArgument;
  if (!record_fields_finite(shape, record)) return Status::kCorrupt;
  const CodePlanes planes = code_planes(shape.bits);
  const std::size_t first_bytes = plane_bytes(shape.rows, planes.first_bits);
  const std::size_t second_bytes = plane_bytes(shape.rows, planes.second_bits);
  for (std::size_t at = codes_offset(shape); at < record.size(); at += first_bytes + second_bytes) {
    if (!plane_spare_bits_zero(shape.rows, planes.first_bits, record.subspan(at, first_bytes)) ||
        !plane_spare_bits_zero(shape.rows, planes.second_bits, record.subspan(at + first_bytes, second_bytes))) {
      return Status::kCorrupt;
    }
  }
  return Status::kOk;
}

}  // namespace kvarn
