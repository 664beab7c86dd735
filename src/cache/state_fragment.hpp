// How a sealed tile travels through an engine that saves and restores rows of half-precision values of nominal size:
// every live row of the tile carries one fragment of its payload (state_sections.hpp), with what is needed to put it
// together again. Every bit pattern made here is a finite half-precision value, so that damaged fragments are at worst
// wrong numbers.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/half.hpp"
#include "format/tile_record.hpp"

namespace kvarn {

struct StateFragment {
  std::uint16_t row = 0;        // of the tile
  std::uint16_t index = 0;      // of this fragment among `fragments`
  std::uint16_t fragments = 0;  // live rows of the tile
  std::uint16_t dim = 0;        // head dimension
  std::uint16_t tile_tokens = 0;
  std::uint16_t bits = 0;  // code_kind() of the record
  std::uint32_t payload_bytes = 0;
  std::uint64_t payload_hash = 0;
  std::span<const std::uint8_t> share;  // the bytes of the payload that share_range() names
};

// Width of the codes and version of the record in one number: the width itself for version 1.
constexpr std::uint16_t code_kind(const TileShape& shape) {
  return static_cast<std::uint16_t>(shape.bits | (static_cast<std::uint32_t>(shape.version) - 1u) << 8);
}

// The bytes of a payload that one of its fragments carries: equal shares, the last ones shorter or empty.
struct ShareRange {
  std::size_t first;
  std::size_t size;
};
constexpr ShareRange share_range(std::size_t payload_bytes, std::size_t fragments, std::size_t index) {
  const std::size_t share = (payload_bytes + fragments - 1) / fragments;
  const std::size_t first = std::min(payload_bytes, share * index);
  return {first, std::min(share, payload_bytes - first)};
}

// How many bytes of a payload a row of row_values values can carry.
std::size_t fragment_capacity(std::uint32_t row_values);

// Writes a fragment into a row. It must fit.
void pack_fragment(const StateFragment& fragment, std::span<HalfBits> row);

// Reads a fragment; nothing if the row is not one (every other row, and every damaged one, up to a 64-bit checksum).
// `bytes` is working memory that the returned share points into: row.size() * 2 bytes.
std::optional<StateFragment> unpack_fragment(std::span<const HalfBits> row, std::span<std::uint8_t> bytes);

std::uint64_t hash_bytes(std::span<const std::uint8_t> bytes, std::uint64_t seed);

}  // namespace kvarn
