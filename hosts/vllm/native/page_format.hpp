// What one page of the engine's cache holds: one tile of one layer, all KV heads. Either records, or exact rows in the
// order in which attention reads them (preset f16). Knows sizes only.
#pragma once

#include <cstddef>
#include <cstdint>

#include "codec/tile_codec.hpp"
#include "format/exact_block.hpp"
#include "format/tile_record.hpp"

namespace kvarn_vllm {

inline constexpr std::uint32_t kTileTokens = 128;
inline constexpr std::uint32_t kUnitTokens = kvarn::kBlockTokens;
inline constexpr std::uint32_t kTileUnits = kTileTokens / kUnitTokens;

// page = K of all heads | V of all heads, each either kv_heads records or kTileUnits blocks of 16 exact tokens.
struct PageFormat {
  std::uint32_t kv_heads;
  std::uint32_t dim_k;  // multiples of 16
  std::uint32_t dim_v;
  std::uint32_t k_bits;  // of the codes; 0: exact rows, on both sides
  std::uint32_t v_bits;
  kvarn::RecordVersion version = kvarn::RecordVersion::kHalves;

  bool exact() const { return k_bits == 0; }
  std::size_t unit_values(kvarn::Side side) const { return std::size_t{kv_heads} * kUnitTokens * dim(side); }
  kvarn::TileShape record_shape(kvarn::Side side) const {
    return kvarn::tile_shape(side, kTileTokens, dim(side), bits(side), version);
  }
  std::size_t record_bytes(kvarn::Side side) const { return kvarn::record_bytes(record_shape(side)); }
  std::size_t side_bytes(kvarn::Side side) const {
    return exact() ? kTileUnits * unit_values(side) * sizeof(kvarn::HalfBits) : kv_heads * record_bytes(side);
  }
  // Of one KV head and token, rounded up: what the engine multiplies with heads and tokens.
  std::size_t bytes_per_token() const {
    const std::size_t head = (side_bytes(kvarn::Side::kKey) + side_bytes(kvarn::Side::kValue)) / kv_heads;
    return (head + kTileTokens - 1) / kTileTokens;
  }
  std::size_t page_bytes() const { return bytes_per_token() * kTileTokens * kv_heads; }

  std::uint32_t dim(kvarn::Side side) const { return side == kvarn::Side::kKey ? dim_k : dim_v; }
  std::uint32_t bits(kvarn::Side side) const { return side == kvarn::Side::kKey ? k_bits : v_bits; }
};

}  // namespace kvarn_vllm
