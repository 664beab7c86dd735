// The reference codec: exact half-precision rows to a tile record and back, in obvious scalar loops.
// Linked by tests only; with docs/format/tile_record.md it defines the truth that the codec must reproduce byte for
// byte.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/half.hpp"
#include "base/result.hpp"
#include "format/tile_record.hpp"
#include "reference/float_tile.hpp"
#include "reference/search.hpp"

namespace kvarn::reference {

// How codes are chosen. kOfficial: the published method; kScaled: the same after scaling the tile by a power of two;
// kFast: a search for the least error; kBest: the same, refined, for K as far as queries see the error; kPlain: no
// search.
enum class Level : std::uint8_t { kOfficial, kScaled, kFast, kBest, kPlain };

// K tiles have channels as rows and tokens as lanes, V tiles the other way round.
enum class Axis : std::uint8_t { kKey, kValue };

// One KV head's tile; tokens and dim are multiples of 16.
struct TileSpec {
  Axis axis;
  std::uint32_t tokens;
  std::uint32_t dim;
  std::uint32_t bits;
  RecordVersion version = RecordVersion::kHalves;  // kBytes: levels kFast and kBest only
};

TileShape shape_of(const TileSpec& spec);

// The rotated tile of exact rows; rows[t] points to spec.dim channels of token t.
FloatTile rotated_tile(const TileSpec& spec, std::span<const HalfBits* const> rows);

// A record of record_bytes(shape_of(spec)) bytes. Errors: kInvalidArgument (shape, level or row count), kNonFinite (a
// NaN or infinity in the rows), kOutOfRange (a field would be infinite in half precision), in this order. Only K tiles
// at kBest look at the moments; without any they are encoded as at kFast.
Result<std::vector<std::uint8_t>> encode(const TileSpec& spec, Level level, std::span<const HalfBits* const> rows,
                                         const Moments* moments = nullptr);

// The record's values, still rotated: (code * row_scale + row_zero) * lane_scale.
FloatTile decode_rotated(const TileShape& shape, std::span<const std::uint8_t> record);

// The record's values rotated back, before rounding to half precision: [tokens, dim]. What attention computes with.
std::vector<float> decode_rows(const TileSpec& spec, std::span<const std::uint8_t> record);

// The same rounded to half precision, values beyond +-65504 saturated: [tokens, dim]. What reading a cache gives back.
std::vector<HalfBits> decode_half_rows(const TileSpec& spec, std::span<const std::uint8_t> record);

}  // namespace kvarn::reference
