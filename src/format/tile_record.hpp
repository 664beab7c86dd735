// The tile record, format versions 1 and 2: sizes, offsets and the place of every code. docs/format/tile_record.md is
// the contract. Knows bytes only; nothing of encoders, caches or engines.
//
//   version 1 = row_scale half[R] | row_zero half[R] | lane_scale half[L] | codes
//   version 2 = row_scale byte[R] | row_middle byte[R] | lane_scale byte[L] | codes          (format/byte_fields.hpp)
//   codes  = for each block of 16 lanes: the planes of that block, widest plane first
//   plane  = for each group of 32/bits rows (8 bits: 4, 4: 8, 2: 16, 1: 32): one 64-byte chunk
//   chunk  = byte 4*lane + (row % 4), in it the bits of row group k = (row in chunk)/4 at bit k*bits, lane = lane % 16
//
// Four neighbouring rows of a lane are four neighbouring bytes: one integer dot instruction multiplies them with four
// folded query values and needs no horizontal sum. 3, 5 and 6 bits are planes: 2+1, 4+1, 4+2 (high bits in the first
// plane).
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/result.hpp"

namespace kvarn {

inline constexpr std::uint32_t kLaneBlock = 16;   // lanes of one chunk
inline constexpr std::uint32_t kRowGroup = 4;     // rows of one integer dot instruction
inline constexpr std::uint32_t kChunkBytes = 64;  // kLaneBlock * kRowGroup
inline constexpr std::uint32_t kMaxRows = 1024;   // also the largest head dimension
inline constexpr std::uint32_t kMaxLanes = 1024;
inline constexpr std::uint32_t kMaxTileTokens = 256;  // of a cache's tiles: rows of V records, lanes of K records

// What a record's fields are.
enum class RecordVersion : std::uint8_t {
  kHalves = 1,  // of half precision
  kBytes = 2,   // of one byte
};

// Rows carry a scale and a zero and are summed over; lanes carry a scale and are produced.
// K tile: rows = channels, lanes = tokens. V tile: rows = tokens, lanes = channels.
struct TileShape {
  std::uint32_t rows;   // multiple of 16, at most kMaxRows
  std::uint32_t lanes;  // multiple of 16, at most kMaxLanes
  std::uint32_t bits;   // 8, 6, 5, 4, 3 or 2
  RecordVersion version = RecordVersion::kHalves;
  friend constexpr bool operator==(const TileShape&, const TileShape&) = default;
};

// The bit planes of a code width: code = first << second_bits | second.
struct CodePlanes {
  std::uint32_t first_bits;   // 8, 4 or 2
  std::uint32_t second_bits;  // 0, 1 or 2
};

constexpr CodePlanes code_planes(std::uint32_t bits) {
  switch (bits) {
    case 6:
      return {4, 2};
    case 5:
      return {4, 1};
    case 3:
      return {2, 1};
    default:
      return {bits, 0};
  }
}

constexpr bool valid_code_bits(std::uint32_t bits) { return bits == 8 || (bits >= 2 && bits <= 6); }

constexpr Status validate(const TileShape& shape) {
  const bool rows_fit = shape.rows >= 16 && shape.rows % 16 == 0 && shape.rows <= kMaxRows;
  const bool lanes_fit = shape.lanes >= 16 && shape.lanes % 16 == 0 && shape.lanes <= kMaxLanes;
  return rows_fit && lanes_fit && valid_code_bits(shape.bits) ? Status::kOk : Status::kInvalidArgument;
}

// Rows that one chunk of a plane holds.
constexpr std::uint32_t rows_per_chunk(std::uint32_t plane_bits) { return 32 / plane_bits; }

// Bytes of one plane of one lane block. A last chunk that is not full keeps its size; its spare bits are zero.
constexpr std::size_t plane_bytes(std::uint32_t rows, std::uint32_t plane_bits) {
  if (plane_bits == 0) return 0;
  const std::uint32_t per_chunk = rows_per_chunk(plane_bits);
  return std::size_t{(rows + per_chunk - 1) / per_chunk} * kChunkBytes;
}

constexpr std::size_t lane_block_bytes(const TileShape& shape) {
  const CodePlanes planes = code_planes(shape.bits);
  return plane_bytes(shape.rows, planes.first_bits) + plane_bytes(shape.rows, planes.second_bits);
}

// Version 2 has its middles where version 1 has its zeros.
constexpr std::size_t field_bytes(const TileShape& shape) { return shape.version == RecordVersion::kBytes ? 1 : 2; }
constexpr std::size_t row_scale_offset(const TileShape&) { return 0; }
constexpr std::size_t row_zero_offset(const TileShape& shape) { return field_bytes(shape) * shape.rows; }
constexpr std::size_t lane_scale_offset(const TileShape& shape) { return 2 * field_bytes(shape) * shape.rows; }
constexpr std::size_t codes_offset(const TileShape& shape) {
  return field_bytes(shape) * (2 * std::size_t{shape.rows} + shape.lanes);
}
constexpr std::size_t record_bytes(const TileShape& shape) {
  return codes_offset(shape) + lane_block_bytes(shape) * (shape.lanes / kLaneBlock);
}

// Where the bits of one code lie in one plane: byte offset from the plane's start in its lane block, and the shift in
// it.
struct CodePlace {
  std::size_t byte;
  std::uint32_t shift;
};

constexpr CodePlace code_place(std::uint32_t plane_bits, std::uint32_t row, std::uint32_t lane) {
  const std::uint32_t per_chunk = rows_per_chunk(plane_bits);
  const std::uint32_t in_chunk = row % per_chunk;
  return {std::size_t{row / per_chunk} * kChunkBytes + kRowGroup * (lane % kLaneBlock) + in_chunk % kRowGroup,
          in_chunk / kRowGroup * plane_bits};
}

static_assert(record_bytes({128, 128, 4}) + record_bytes({128, 128, 2}) == 13824);

}  // namespace kvarn
