// The head of a tile in a session file: how the tile lies, its tokens, what each store holds of it and where. Reads it
// from untrusted bytes and writes it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "session/session_index.hpp"

namespace kvarn {

struct SessionTokenId {
  std::uint32_t id = 0;
  std::int32_t position = 0;
  friend bool operator==(const SessionTokenId&, const SessionTokenId&) = default;
};

struct SessionTile {
  struct Item {
    TileItem entry;
    std::span<const std::uint8_t> bytes;  // not looked at yet
  };
  SequenceTile tile;                   // its tokens number those of the part, in the order of tiles and rows
  std::vector<SessionTokenId> tokens;  // of the rows that hold one, in their order
  std::vector<Item> items;
};

// The status of damage to the content of an item.
SessionStatus damage_of(ItemKind kind);

// Where a tile head belongs.
struct TilePlace {
  std::uint32_t part = 0;
  std::uint32_t number = 0;
  std::uint32_t first_token = 0;  // number of its first token
};

// bytes: the file. kDamagedTile.
SessionResult<SessionTile> read_tile(std::span<const std::uint8_t> file, const SessionPartIndex& part,
                                     const TilePlace& place);
// The head of a tile whose items have no bytes yet; tokens: by row in use, of rows that hold none whatever.
std::vector<std::uint8_t> write_tile_head(const SequenceTile& tile, const TilePlace& place, std::uint32_t tile_tokens,
                                          std::span<const SessionTokenId> tokens, std::span<const TileItem> items);

}  // namespace kvarn
