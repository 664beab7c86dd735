// How the tokens of a state save lie in tiles: what a restore needs to put them the same way, whatever cells they get.
// Tiles are numbered in the order of their first ranks, tokens in the order in which the engine reads them.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace kvarn {

struct SavedTile {
  static constexpr std::uint32_t kNoTile = 0xFFFFFFFFu;

  std::uint64_t start_rank = 0;
  std::uint32_t number = 0;
  std::uint32_t parent = kNoTile;  // the tile and row of the token before row 0
  std::uint16_t parent_row = 0;
  std::uint16_t used = 0;    // rows handed out
  std::uint32_t ranked = 0;  // 1: start_rank is known
  friend bool operator==(const SavedTile&, const SavedTile&) = default;
};

// Consecutive tokens in consecutive rows of one tile.
struct SavedRun {
  std::uint32_t first_token = 0;
  std::uint32_t tile = 0;
  std::uint16_t first_row = 0;
  std::uint16_t count = 0;
};

struct StateLayout {
  std::uint32_t tokens = 0;  // in the save
  std::vector<SavedTile> tiles;
  std::vector<SavedRun> runs;

  // Adds a token, behind the last run if it continues it.
  void add_row(std::uint32_t token, std::uint32_t tile, std::uint16_t row);
  std::vector<std::uint8_t> bytes() const;
  // Nothing if the bytes spell none. Rows and tile numbers may still be anything.
  static std::optional<StateLayout> parse(std::span<const std::uint8_t> bytes);
};

}  // namespace kvarn
