// One state restore in progress: collects what the engine writes row by row (state_save.hpp tells what that is), and
// plans at its end how the restored tokens lie in tiles. Everything here may come from a damaged or foreign file: a
// plan names only cells that this restore wrote, each in one tile, and rows that exist.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "cache/state_fragment.hpp"
#include "cache/state_layout.hpp"

namespace kvarn {

// A payload of which some fragments, or all, have arrived.
struct ArrivingPayload {
  struct Piece {
    StateFragment fragment;           // without its share
    std::vector<std::uint8_t> share;  // empty once the payload is complete: it is in `bytes`
    std::uint32_t cell = 0;
  };
  std::uint32_t store = 0;
  std::vector<Piece> pieces;
  std::vector<std::uint8_t> bytes;  // the whole payload, once it is complete and its hash is right
  bool is_used = false;             // by a plan

  std::span<const std::uint8_t> share_of(const Piece& piece) const;
};

struct RestorePlan {
  struct Row {
    std::uint32_t cell;
    std::uint16_t row;
  };
  // What one store knows of a tile; the bytes belong to the restore.
  struct StoreContent {
    static constexpr std::size_t kNoPayload = ~std::size_t{0};

    std::uint32_t store = 0;
    std::size_t payload = kNoPayload;  // that brought it; none: it came through the side channel
    std::span<const std::uint8_t> record;
    std::span<const std::uint8_t> history;
  };
  struct Samples {
    std::uint32_t store;
    std::span<const std::uint8_t> bytes;
  };
  struct Tile {
    SavedTile saved;
    std::vector<Row> rows;
    std::vector<StoreContent> contents;
    std::vector<Samples> samples;
  };
  std::vector<Tile> tiles;  // by number, so a parent comes before those that follow it
};

class StateRestore {
 public:
  explicit StateRestore(std::uint32_t tile_tokens) : tile_tokens_(tile_tokens) {}

  bool is_open() const { return is_open_; }
  std::uint32_t stream() const { return stream_; }
  // True if this row can be part of the restore that is open. The first store comes once, each of its cells once: after
  // a restore that the engine gave up, another one begins.
  bool goes_on(std::uint32_t store, std::uint32_t stream, std::uint32_t cell) const {
    const bool is_first = store == first_store_;
    return is_open_ && stream == stream_ && (!is_first || (store == last_store_ && is_planned_.count(cell) == 0));
  }
  void begin(std::uint32_t store, std::uint32_t stream);
  // Notes a row of a store that goes_on(). True if its cell has not been seen in this restore.
  bool arrive(std::uint32_t store, std::uint32_t cell);
  // Takes the fragment that arrived as that row. False if there is no room for more incomplete payloads: the row is to
  // be taken for values.
  bool add(std::uint32_t store, std::uint32_t cell, const StateFragment& fragment);

  // Ends the restore and forgets everything about it.
  void close();
  std::vector<ArrivingPayload>& payloads() { return payloads_; }
  // Of the payloads that are complete. Marks those that it uses.
  RestorePlan plan();

 private:
  // Far more than an engine that restores tile after tile ever has at once.
  static constexpr std::size_t kMaxIncomplete = 1024;
  static constexpr std::uint64_t kMaxRank = std::uint64_t{1} << 32;

  void complete(std::size_t payload);
  void read_payload(std::size_t payload, RestorePlan& plan);
  void read_side_channel(RestorePlan& plan);
  void read_layout(const StateLayout& layout, RestorePlan& plan);
  void read_samples(RestorePlan& plan);
  // Takes a tile number from the front of `bytes`; nullptr if the plan has no tile of that number.
  RestorePlan::Tile* numbered_tile(std::span<const std::uint8_t>& bytes, RestorePlan& plan) const;
  // The tile of the plan with this number, if it can be the one that is described; otherwise nullptr. A new one takes
  // the rows if they are valid and no other tile has them.
  RestorePlan::Tile* tile_at(RestorePlan& plan, const SavedTile& saved, const std::vector<RestorePlan::Row>& rows);
  bool takes_rows(const SavedTile& saved, const std::vector<RestorePlan::Row>& rows);

  std::uint32_t tile_tokens_;
  bool is_open_ = false;
  std::uint32_t stream_ = 0;
  std::uint32_t first_store_ = 0;
  std::uint32_t last_store_ = 0;
  std::vector<std::uint32_t> cells_;          // in order of arrival
  std::map<std::uint32_t, bool> is_planned_;  // by cell that has arrived
  std::vector<ArrivingPayload> payloads_;
  std::map<std::uint64_t, std::size_t> incomplete_;  // payload by hash, of the last store
  std::map<std::uint32_t, std::size_t> tile_by_number_;
  std::map<std::uint32_t, std::span<const std::uint8_t>> side_pieces_;  // by offset
  std::vector<std::uint8_t> side_;
};

}  // namespace kvarn
