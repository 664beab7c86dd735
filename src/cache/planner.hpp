// From a micro-batch's mask to decisions: where new tokens go, what every query sees of every tile, which tiles are
// sealed. The mask is the only thing an engine tells: a token's mask row shows every cell of its sequence.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "attention/attend.hpp"
#include "cache/cache_config.hpp"
#include "cache/cell_map.hpp"

namespace kvarn {

// The masks of one micro-batch: slice s belongs to stream first_stream + s. Strides count elements.
struct BatchMask {
  const HalfBits* data = nullptr;  // data[slice*slice_stride + query*query_stride + cell]; -infinity: not seen
  std::size_t slice_stride = 0;
  std::size_t query_stride = 0;
  std::uint32_t first_stream = 0;
  std::uint32_t slices = 0;
  std::uint32_t queries = 0;  // per slice
  std::uint32_t columns = 0;  // cells per query
  const HalfBits* row(std::uint32_t slice, std::uint32_t query) const {
    return data + slice * slice_stride + query * query_stride;
  }
};

// Consecutive queries of one slice in which each sees the one before it: one sequence at work.
struct QueryRun {
  std::uint32_t slice = 0;
  std::uint32_t first_query = 0;
  std::uint32_t queries = 0;
  std::uint32_t oldest_query =
      0;  // the first of the micro-batch that its sequence has: of this run, or of one before it
  std::vector<std::uint32_t> refs;     // list entries of the stream, by rank
  std::vector<Visibility> visibility;  // [queries, refs]
};

struct AttentionPlan {
  std::uint64_t mask_hash = 0;
  std::uint64_t version = 0;  // of the map it was made for; 0: no plan
  std::vector<QueryRun> runs;
  std::uint32_t first_stream = 0;
  std::uint32_t queries = 0;         // per slice
  std::vector<std::uint32_t> cells;  // [slices, queries], where the tokens are written; empty: none are
  std::size_t bytes() const;
};

// Copy the rows of a cell that stays alive although its tile was cut short.
struct RowMove {
  TileId from_tile;
  std::uint32_t from_row;
  TileId to_tile;
  std::uint32_t to_row;
};

class Planner {
 public:
  Planner(const CacheConfig& config, CellMap& map);

  // Places the tokens written by this micro-batch (cells[slice*queries + query]; empty: none are written) and makes the
  // plan. A repeated call with the same mask and cells and an unchanged map keeps the plan. Row moves must be carried
  // out before writing.
  const AttentionPlan& observe(const BatchMask& mask, std::span<const std::uint32_t> cells);

  // The micro-batch at hand writes this cell where it is now.
  bool placed_now(std::uint32_t stream, std::uint32_t cell) const;

  // A place for a row that comes without a mask, in order of arrival.
  Place place_unseen(Stream& stream, std::uint32_t cell);

  std::span<const RowMove> moves() const { return moves_; }
  const AttentionPlan& plan() const { return plan_; }
  void forget() { plan_ = AttentionPlan{}; }
  // The plan still serves this micro-batch; the next observe() makes a new one, whatever its mask.
  void expire() { plan_.version = 0; }

 private:
  enum : std::uint32_t { kWaiting = 1, kPlaced = 2 };
  struct Parent {
    bool exists = false;
    Place place;
  };

  bool all_placed_now(const BatchMask& mask, std::span<const std::uint32_t> cells) const;
  void place_slice(const BatchMask& mask, std::uint32_t slice, std::span<const std::uint32_t> cells);
  // That of the run which this query of the slice belongs to.
  std::uint32_t oldest_query(std::uint32_t slice, std::uint32_t query) const;
  void place_token(std::uint32_t index, std::uint32_t cell, const Parent& parent);
  bool stays(const Stream& stream, std::uint32_t cell, const Parent& parent) const;
  bool make_room_after(std::uint32_t index, Place parent);
  // Takes the rows from `first_row` on out of a tile; those of cells that do not wait for a token go to a tile of their
  // own.
  void move_rows(std::uint32_t index, std::uint32_t ref, std::uint32_t first_row);
  Parent newest_visible(std::uint32_t index, const HalfBits* mask, std::uint32_t columns);
  void rank_visible(std::uint32_t index, const HalfBits* mask, std::uint32_t columns);
  bool waiting(std::uint32_t stream, std::uint32_t cell) const;

  void plan_run(const BatchMask& mask, QueryRun& run, std::span<const std::uint32_t> cells);
  // Fills refs and visibility, and how many rows of each the query sees that decides on sealing: the run's first one
  // (of own rows: the last one). False if the last query sees a cell that the map does not know.
  bool look_at_tiles(const BatchMask& mask, QueryRun& run, std::vector<std::uint32_t>& seen_rows);
  void map_missing(const BatchMask& mask, const QueryRun& run);
  void note_growth(const BatchMask& mask, const QueryRun& run, std::span<const std::uint32_t> cells);
  // cells: where the tokens of the slice are written.
  void choose_sealing(std::uint32_t index, const QueryRun& run, std::span<const std::uint32_t> seen_rows,
                      std::span<const std::uint32_t> cells);
  // Seals old complete tiles of a sliding window's stream.
  void seal_passed(Stream& stream, std::uint64_t rank);
  // The seal rule: a complete tile beyond the sink that ends `distance` tokens or more before `rank`, if it may start.
  void seal_if_due(const TileRef& ref, std::uint64_t rank, bool may_start, std::uint64_t distance);

  CacheConfig config_;
  CellMap& map_;
  AttentionPlan plan_;
  std::vector<RowMove> moves_;
  std::uint64_t epoch_ = 0;
  std::vector<LazyArray<std::uint64_t>> marks_;  // per stream and cell: epoch*4 + state
};

}  // namespace kvarn
