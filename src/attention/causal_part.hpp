// Queries that are the newest tokens of a sequence, against its tiles: what each of them sees follows from distance
// alone. For callers that know ranks and no masks; sits on attend.hpp and knows nothing of where tiles come from.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "attention/attend.hpp"

namespace kvarn {

// The rank of the oldest row that a query of this rank sees; a window of 0 is none.
constexpr std::uint32_t oldest_seen(std::uint32_t rank, std::uint32_t window) {
  return window == 0 || rank < window ? 0 : rank - window + 1;
}

// Tile i of the sequence holds the ranks from i * tile_tokens on.
struct CausalRange {
  std::uint32_t first_rank;  // of the first query
  std::uint32_t queries;     // at least 1; their ranks follow each other
  std::uint32_t window;      // query of rank r sees the ranks from oldest_seen(r, window) to r
  std::uint32_t tile_tokens;

  constexpr std::uint32_t total() const {
    return first_rank + queries;
  }  // tokens of the sequence, the queries among them
  constexpr std::uint32_t first_tile() const { return oldest_seen(first_rank, window) / tile_tokens; }
  constexpr std::uint32_t end_tile() const { return (total() + tile_tokens - 1) / tile_tokens; }
};

// What the queries see of the tiles from first_tile() to end_tile(). The same for every layer with this window.
class CausalPart {
 public:
  explicit CausalPart(const CausalRange& range);

  const CausalRange& range() const { return range_; }
  std::uint32_t tile_count() const { return range_.end_tile() - range_.first_tile(); }

  // Completes the views [tile_count()], whose sides are set, and returns everything but the queries' memory and their
  // output. The job points into the views and into this object.
  AttentionJob job(std::span<TileView> views) const;

 private:
  const std::uint32_t* columns_of(std::uint32_t first_rank) const;

  CausalRange range_;
  std::uint64_t reach_;                 // columns that are ever read are below this
  std::vector<HalfBits> mask_;          // by query + column: minus infinity or 0
  std::vector<std::uint32_t> columns_;  // descending
  std::vector<Visibility> seen_;        // [queries, tiles]
};

}  // namespace kvarn
