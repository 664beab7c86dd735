// A compressed KV cache: streams of cells, rows of several layers, sealed tiles, attention over all of it. Behaves
// towards its engine like plain arrays of half-precision rows, except that old rows read back as what their record
// holds. Not thread safe: one caller at a time; the caller's runner does the parallel work inside.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "attention/attend.hpp"
#include "base/runner.hpp"
#include "cache/cache_config.hpp"
#include "cache/cell_map.hpp"
#include "cache/planner.hpp"
#include "cache/row_store.hpp"
#include "cache/snapshot.hpp"
#include "cache/state_restore.hpp"
#include "cache/state_save.hpp"
#include "cache/tile_sealing.hpp"

namespace kvarn {

using StoreId = std::uint32_t;

// Where the bytes of a cache are.
struct CacheAccount {
  std::uint64_t record_bytes = 0;    // sealed records
  std::uint64_t open_row_bytes = 0;  // exact rows, in blocks of 16
  std::uint64_t slack_bytes = 0;     // taken from the system, not in use
  std::uint64_t map_bytes = 0;
  std::uint64_t scratch_bytes = 0;
  std::uint64_t moment_bytes = 0;  // samples of queries and their moments
  std::uint64_t f16_bytes = 0;     // the cells in use as plain half-precision rows
  std::uint64_t cells_in_use = 0;
  std::uint64_t sealed_tokens = 0;  // of them in tiles that every layer has sealed
  std::uint64_t foreign_bytes = 0;  // sealed records that lie in memory of somebody else, such as a mapped file

  // What the tokens in use take: without the map and the scratch of the work at hand.
  std::uint64_t held_bytes() const { return record_bytes + open_row_bytes + slack_bytes + moment_bytes; }
};

// The queries of one attention call: q[slice*q_slice + query*q_query + head*q_head + channel], out likewise.
struct AttentionTensors {
  const float* q = nullptr;
  std::size_t q_slice = 0, q_query = 0, q_head = 0;
  float* out = nullptr;
  std::size_t out_slice = 0, out_query = 0, out_head = 0;
};

class KvCache final : public SnapshotSource, public SnapshotTarget {
 public:
  // Cells are numbered from 0 in every stream. The configuration must be valid. limit: on exact rows and records, with
  // their slack; may be shared with other caches, must outlive this one; nullptr: none. Sealing may exceed it by the
  // records of one layer at a time, which replace larger rows.
  KvCache(const CacheConfig& config, std::uint32_t streams, std::uint32_t cells, MemoryLimit* limit = nullptr);

  const CacheConfig& config() const override { return config_; }
  std::uint32_t cells() const { return map_.cells(); }
  std::uint32_t stream_count() const { return map_.stream_count(); }

  // Adds one layer's K or V with rows of `row_values` half-precision values (KV heads x head dimension, a
  // multiple of 16).
  StoreId add_store(Side side, std::uint32_t layer, std::uint32_t row_values);
  // The engine keeps this layer side itself from now on: its bytes are dropped.
  void retire_store(StoreId store);

  // The layers have a sliding window: tiles are sealed only once they are long past, and queries are not kept, from now
  // on and for good. Without it a stream shows its window when a sequence outgrows it, and may have sealed tiles inside
  // it until then.
  void expect_window() { map_.expect_window(); }

  // Tells the cache a micro-batch's mask and, cell by cell in query order, where its tokens are written (may be empty).
  // Call before the rows are written and again, without cells, before attention if anything may have changed.
  // kOutOfMemory: rows that had to move are lost; call forget_batch().
  Status observe(const BatchMask& mask, std::span<const std::uint32_t> cells);
  // The micro-batch at hand failed: its tokens are nowhere, and what their rows took is given back. Whatever was there
  // before stays.
  void forget_batch();
  // Drops the tiles of the streams at hand that the micro-batch at hand does not see: an engine never says that it
  // freed cells. Only where a stream holds one sequence, so not with a single stream, and not of sliding windows, whose
  // tokens may be seen again after a step back. Returns whether anything was dropped.
  bool drop_unseen();

  // Writes one row exactly. Another row of the same cell in other stores keeps its value. kOutOfMemory, kOutOfRange
  // (cell).
  Status write_row(StoreId store, std::uint32_t stream, std::uint32_t cell, const float* values);
  Status write_row(StoreId store, std::uint32_t stream, std::uint32_t cell, const HalfBits* values);
  // Reads one row: what was written, bit for bit, unless its tile is sealed; zeros where nothing was written.
  void read_row(StoreId store, std::uint32_t stream, std::uint32_t cell, HalfBits* values);
  bool written(std::uint32_t stream, std::uint32_t cell) const;
  // The records of all KV heads of the sealed tile that a cell lies in; empty: it is not sealed in this store.
  std::span<const std::uint8_t> records_at(StoreId store, std::uint32_t stream, std::uint32_t cell) const;
  // What is known of the queries up to the end of that tile (nullptr: nothing), for stores of keys.
  std::shared_ptr<const QueryHistory> history_at(StoreId store, std::uint32_t stream, std::uint32_t cell) const;

  // Rows as an engine's own state save sees them, which reads the rows of a sequence store by store (state_save.hpp).
  // Rows of the store that is read first are values. After it, the rows of a sealed tile all of whose tokens are read
  // carry its records and what else is needed to go on with the same bytes. Samples of queries that find no room are
  // forgotten, here too: what was saved and what is restored go on alike. rows: [count, row_values].
  void read_state_rows(StoreId store, std::uint32_t stream, std::uint32_t first_cell, std::uint32_t count,
                       HalfBits* rows);
  // Writes a row that read_state_rows gave, here or in another process, to any cell, in the order in which they were
  // read; any other row is written as it is. The token that had the cell before is gone from all stores. Records are
  // put together when anything else is asked of the cache. kOutOfMemory: rows are lost and read as zeros.
  Status write_state_row(StoreId store, std::uint32_t stream, std::uint32_t cell, const HalfBits* values);

  // The sequence of these cells, in the order of its tokens. kInvalidArgument: also a cell that is out of range, not
  // written or given twice. kOutOfMemory: as observe().
  Result<SequenceLayout> sequence_layout(std::uint32_t stream, std::span<const std::uint32_t> cells) override;
  // A tile that also has rows of tokens outside the sequence (a fork's, or dropped ones whose cells nobody wrote since:
  // drop_cells() tells them) goes as rows, with zeros for those, and is not sealed again.
  TileContent tile_content(const SequenceLayout& layout, std::uint32_t tile, std::uint32_t store,
                           ContentBuffer& buffer) const override;
  // Takes a sequence into these cells, one for each of its tokens. Tokens that had the cells before are gone.
  Status place_sequence(std::uint32_t stream, SequenceLayout& layout, std::span<const std::uint32_t> cells) override;
  Status fill_tile(const SequenceLayout& layout, std::uint32_t tile, std::uint32_t store,
                   const TileContent& content) override;
  std::shared_ptr<const QueryHistory> tile_history(const SequenceLayout& layout, std::uint32_t tile,
                                                   std::uint32_t store) const override;
  Status finish_sequence(const SequenceLayout& layout) override;
  void abandon_sequence(const SequenceLayout& layout, std::span<const std::uint32_t> cells) override;
  // Drops the tokens of these cells.
  void drop_cells(std::uint32_t stream, std::span<const std::uint32_t> cells);

  // Tells head counts before the first attention; kInvalidArgument if they do not fit.
  Status learn_heads(StoreId k, StoreId v, const HeadCounts& counts);

  // Attention of one layer with the mask given to observe(). Seals first what is due. kInvalidArgument: the head counts
  // do not fit the stores; kOutOfMemory: as observe(). Nothing was computed then.
  Status attend(StoreId k, StoreId v, const HeadCounts& counts, const AttentionParams& params, const BatchMask& mask,
                const AttentionTensors& tensors, const Runner& runner);

  // Makes `to` a copy of `from`, sharing all bytes until one of them changes. Repeating it at once does nothing.
  void copy_stream(std::uint32_t from, std::uint32_t to);

  // Lets edit(rows, cells) change rows of one store in place, tile by tile: rows is [cells.size(), row_values] with
  // TileView::kNoCell for rows without a token; only tiles with a cell for which selects(cell) holds. Sealed tiles are
  // sealed again from the edited rows.
  template <class Selects, class Edit>
  Status edit_rows(StoreId store, std::uint32_t stream, Selects&& selects, Edit&& edit);

  void clear();
  CacheAccount account() const;

 private:
  // True if a placed cell's row can be written where it is.
  bool takes_row(StoreId store, std::uint32_t stream, std::uint32_t cell) const;
  // Where a cell's row can be written: its place, or a new one if its tile is shared, sealed or about to be.
  Result<Place> writable_place(StoreId store, std::uint32_t stream, std::uint32_t cell);
  template <class Value>
  Status write_values(StoreId store, std::uint32_t stream, std::uint32_t cell, const Value* values);
  Status relocate(std::uint32_t stream, std::uint32_t cell);
  // Copies a row from one tile to another in every store.
  Status carry_row(const RowMove& move);
  // Before anything but a save or a restore goes on: ends those that are open.
  Status end_transfers();
  // Puts what was restored into tiles as it was before the save. Does nothing if no restore is open.
  Status settle_restore();
  Status write_spelled(const ArrivingPayload& payload, std::uint32_t stream);
  TileId place_restored(const RestorePlan::Tile& tile, std::uint32_t stream);
  void move_restored(const RestorePlan::Tile& tile, const RowMove& move);
  Status fill_restored(const RestorePlan::Tile& tile, TileId id);
  SequenceTile describe_tile(const TileRef& ref, std::vector<std::uint32_t> tokens) const;
  // The store of this cache that holds what `shape` tells; nothing if there is none that can.
  std::optional<StoreId> store_for(const StoreShape& shape) const;
  bool fits_layout(const SequenceLayout& layout, std::span<const std::uint32_t> cells) const;
  void learn_shape(StoreId store, const StoreShape& shape);
  void place_tile(Stream& stream, SequenceTile& tile, std::span<const std::uint32_t> cells);
  // Looks at records of somebody else that the micro-batch at hand is the first to read.
  Status check_foreign(StoreId k, StoreId v, const BatchMask& mask, const Runner& runner);
  // True if it is this store's turn to seal this tile.
  bool is_due(const RowStore& store, TileId id) const;
  // Keeps the sampled queries of this micro-batch for the tiles that their own rows lie in.
  void keep_queries(StoreId k, const HeadCounts& counts, const BatchMask& mask, const AttentionTensors& tensors);
  // What is known at the end of a tile of the queries of its sequence: the samples of the tiles before it and its own.
  std::shared_ptr<const QueryHistory> history_up_to(const RowStore& keys, TileId tile) const;
  // Rounds due tiles of stores with a baseline format; seals due tiles of the others.
  void round_due(StoreId k, StoreId v);
  void seal_due(StoreId k, StoreId v, const Runner& runner);
  std::vector<SealJob> due_jobs(StoreId k, StoreId v);
  void finish_sealing();
  void drop_released();
  Status make_private(std::uint32_t stream, std::uint32_t ref);
  Status replace_tile_rows(StoreId store, TileId tile, std::uint32_t rows, const HalfBits* values);
  SlabPool& pool(std::map<std::size_t, SlabPool>& pools, std::size_t slot_bytes) const;

  CacheConfig config_;
  MemoryLimit* limit_;
  CellMap map_;
  Planner planner_;
  std::map<std::size_t, SlabPool> record_pools_;  // by slot size
  std::map<std::size_t, SlabPool> block_pools_;
  std::deque<RowStore> stores_;
  std::vector<bool> retired_;
  StateSave save_;
  StateRestore restore_;
  AttentionScratch attention_scratch_;
  AttentionScratch seal_scratch_;
};

template <class Selects, class Edit>
Status KvCache::edit_rows(StoreId store, std::uint32_t stream, Selects&& selects, Edit&& edit) {
  if (const Status status = end_transfers(); status != Status::kOk) return status;
  Stream& target = map_.stream(stream);
  std::vector<HalfBits> rows;
  for (std::uint32_t ref = 0; ref < target.refs.size(); ++ref) {
    if (target.refs[ref].live == 0) continue;
    bool wanted = false;
    for (const std::uint32_t cell : target.refs[ref].cells) {
      wanted = wanted || (cell != TileView::kNoCell && selects(cell));
    }
    if (!wanted) continue;
    if (const Status status = make_private(stream, ref); status != Status::kOk) return status;
    const TileId tile = target.refs[ref].tile;
    const std::uint32_t used = map_.tile(tile).used;
    rows.resize(std::size_t{used} * stores_[store].row_values());
    stores_[store].read_rows(tile, used, rows.data());
    edit(rows.data(), std::span<const std::uint32_t>(target.refs[ref].cells.data(), used));
    if (const Status status = replace_tile_rows(store, tile, used, rows.data()); status != Status::kOk) return status;
  }
  return Status::kOk;
}

}  // namespace kvarn
