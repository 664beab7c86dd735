// Tiles of K and V between exact half-precision rows and sealed records: gather, rotate, normalize, round, pack, and
// back. Sits on format and kernels; knows nothing of caches, sequences or engines.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/half.hpp"
#include "base/result.hpp"
#include "codec/query_moments.hpp"
#include "format/exact_block.hpp"
#include "format/tile_record.hpp"

namespace kvarn {

// How codes are chosen; every level writes the same format.
enum class EncoderLevel : std::uint8_t {
  kOfficial,  // the published method: VarN (8 iterations) and min/max round-to-nearest (algorithm: KVarN, arXiv
              // 2606.03458)
  kScaled,    // the same after scaling the tile by a power of two, so that small and large tiles are normalized alike
  kFast,      // lanes to a root mean square of one, then for each row a line that neither shrinks nor stretches it
  kBest,      // K: rounding errors of a channel are made good by the next ones, as far as queries see them
              // (QueryMoments; none: kFast), then each row once more, by all others' errors. V: kFast, each row twice
  kPlain,     // kFast without a search: a row's line is that of its range
};

inline constexpr std::array<std::string_view, 5> kEncoderLevelNames = {"official", "scaled", "fast", "best", "plain"};

// The level of this code width if none is named. At 8 bits there is nothing left to gain (docs/decisions/0009).
constexpr EncoderLevel default_level(std::uint32_t bits) {
  return bits < 8 ? EncoderLevel::kBest : EncoderLevel::kFast;
}

constexpr std::string_view level_name(EncoderLevel level) {
  return kEncoderLevelNames[static_cast<std::size_t>(level)];
}

// Sets the level of this name; kInvalidArgument (level untouched) if there is none.
constexpr Status level_from_name(std::string_view name, EncoderLevel& level) {
  for (std::size_t i = 0; i < kEncoderLevelNames.size(); ++i) {
    if (kEncoderLevelNames[i] != name) continue;
    level = static_cast<EncoderLevel>(i);
    return Status::kOk;
  }
  return Status::kInvalidArgument;
}

// Which side a tile serves: K tiles have channels as rows and tokens as lanes, V tiles the other way round.
enum class Side : std::uint8_t { kKey, kValue };

// The record shape of one KV head's tile: `tokens` and `dim` are multiples of 16.
constexpr TileShape tile_shape(Side side, std::uint32_t tokens, std::uint32_t dim, std::uint32_t bits,
                               RecordVersion version = RecordVersion::kHalves) {
  return side == Side::kKey ? TileShape{dim, tokens, bits, version} : TileShape{tokens, dim, bits, version};
}

// Fields of one byte are written by the levels that choose codes for the line as it is stored.
constexpr bool writes_version(EncoderLevel level, RecordVersion version) {
  return version == RecordVersion::kHalves || level == EncoderLevel::kFast || level == EncoderLevel::kBest;
}

// What encode_tile is asked to do.
struct TileEncoding {
  Side side;
  std::uint32_t dim;
  std::uint32_t bits;
  EncoderLevel level;
  const QueryMoments* moments = nullptr;  // of the queries of this KV head; only K tiles at kBest look at them
  RecordVersion version = RecordVersion::kHalves;
};

// Bytes of scratch that encode_tile needs for this shape and level, and decode_token and decode_tokens for this shape
// (64-byte aligned memory). What encodes is enough to decode.
std::size_t encode_scratch_bytes(const TileShape& shape, EncoderLevel level);
std::size_t decode_scratch_bytes(const TileShape& shape);

// Encodes one KV head's tile. head_blocks point to 16 exact tokens each (format/exact_block.hpp), un-rotated; a null
// one reads as zeros. Writes record_bytes(shape) bytes. Deterministic: the same rows give the same bytes on every
// instruction set.
// Errors: kInvalidArgument (also if the level does not write the version), kNonFinite (a NaN or infinity in the rows),
// kOutOfRange; on error the record is untouched.
Status encode_tile(const TileEncoding& encoding, std::span<const HalfBits* const> head_blocks, std::byte* scratch,
                   std::uint8_t* record);

// Tokens of one KV head in rows: channel c of token t is data[t * stride + c].
struct TokenRows {
  const HalfBits* data;
  std::size_t stride;
  std::uint32_t tokens;
};

// encode_tile for tokens that lie in rows: the same record, without blocks in between.
Status encode_tokens(const TileEncoding& encoding, const TokenRows& rows, std::byte* scratch, std::uint8_t* record);

// Decodes one token of a sealed tile to `dim` un-rotated channels, rounded to half precision (saturating at +-65504).
void decode_token(Side side, const TileShape& shape, const std::uint8_t* record, std::uint32_t token,
                  std::byte* scratch, HalfBits* channels);

// Decodes every token of a sealed tile, as decode_token does; channels is [tokens, stride] with `dim` used of each row.
void decode_tokens(Side side, const TileShape& shape, const std::uint8_t* record, std::byte* scratch,
                   HalfBits* channels, std::size_t stride);

}  // namespace kvarn
