// How tiles that are due become records: what is known of the queries of their sequence, and the encoding itself.
// Shared by the caches; knows stores and tiles, nothing of which tile follows which or when one is due.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/runner.hpp"
#include "cache/row_store.hpp"

namespace kvarn {

struct RankedTile {
  TileId id;
  std::uint64_t start_rank;  // rank of its row 0 in its sequence
};

// What is known at the end of a tile of the queries of its sequence: the samples of the tiles before it and its own.
// before(tile) is the complete tile before this one, or nothing.
template <class Before>
std::shared_ptr<const QueryHistory> history_up_to(const RowStore& keys, RankedTile tile, Before&& before) {
  // A settled tile's history is fixed, though it may be none. Rows of one that is not may still change: it is summed up
  // anew for every tile that asks.
  const auto is_fixed = [&](TileId id) { return keys.settled(id) || keys.history(id) != nullptr; };
  std::vector<RankedTile> open;  // newest first
  std::optional<RankedTile> at = tile;
  for (; at && !is_fixed(at->id); at = before(*at)) open.push_back(*at);
  std::shared_ptr<const QueryHistory> history = at ? keys.history(at->id) : nullptr;
  for (auto later = open.rbegin(); later != open.rend(); ++later) {
    const Contribution contribution = keys.query_shape().contribution(later->start_rank);
    if (contribution.is_one) history = keys.extend_history(std::move(history), later->id, contribution.rest);
  }
  return history;
}

// One side of one tile that is encoded now, to room that its store gave for it.
struct SealJob {
  RowStore* store;
  TileId tile;
  std::uint8_t* record;
  std::uint32_t bits = 0;  // of its codes; 0: those of the store
  bool encoded = false;    // set by encode_tiles(): the record is whole; false: no record can hold these rows
};

// Encodes all heads of all jobs on the runner's team. Tiles keep their rows; the caller makes them adopt the records.
void encode_tiles(std::span<SealJob> jobs, const Runner& runner, AttentionScratch& scratch);

}  // namespace kvarn
