// A sequence of a cache taken apart: how it lies in tiles, and what each store holds of each tile. What travels this
// way goes on as if it had never left: same records, same ranks, same parents, same queries remembered. Knows no files.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/result.hpp"
#include "cache/cache_config.hpp"
#include "cache/cell_map.hpp"
#include "cache/query_history.hpp"

namespace kvarn {

// One layer's K or V as a sequence has it.
struct StoreShape {
  std::uint32_t layer = 0;
  Side side = Side::kKey;
  std::uint32_t row_values = 0;
  std::uint32_t dim = 0;          // head dimension; 0: no attention yet, then the store holds rows alone
  std::uint32_t query_heads = 0;  // that read this store of keys; 0: not known, or a store of values
  std::uint32_t bits = 0;         // of the records
  friend bool operator==(const StoreShape&, const StoreShape&) = default;
};

struct SequenceTile {
  static constexpr std::uint32_t kNone = 0xFFFFFFFFu;

  std::uint64_t start_rank = 0;
  std::uint64_t observed_rank = 0;
  std::uint32_t parent = kNone;  // number of the tile with the token before row 0; lower than this tile's own
  std::uint32_t parent_row = 0;
  std::uint32_t counted_row = 0;
  std::uint32_t counted = 0;
  TileState state = TileState::kOpen;
  bool ranked = false;
  std::vector<std::uint32_t> tokens;  // [rows in use] number of the row's token in the sequence; kNone: none

  TileId id = 0;               // in the cache at hand
  bool travels_whole = false;  // no row belongs to a token outside the sequence

  std::uint32_t used() const { return static_cast<std::uint32_t>(tokens.size()); }
};

struct SequenceLayout {
  std::uint32_t tile_tokens = 0;
  RecordVersion version = RecordVersion::kHalves;
  bool windowed = false;  // of the stream: a sliding window recycles its cells
  std::uint32_t window_hits = 0;
  std::vector<StoreShape> stores;
  std::vector<SequenceTile> tiles;  // by number, in the order of their ranks
  // In the cache at hand:
  std::uint32_t stream = 0;              // or the sequence, in a cache that numbers those
  std::vector<std::uint32_t> store_ids;  // [stores]
};

// True if every tile and store of a layout can be one: ranks, rows and parents within their bounds, heads that divide
// the rows. Whether its tokens are all there is a matter of the cells they go to.
bool valid_layout(const SequenceLayout& layout);

enum class ContentKind : std::uint32_t {
  kNothing = 0,    // no row was ever written: zeros
  kRecords = 1,    // one record per KV head
  kRows = 2,       // exact rows, half[rows in use][row_values]
  kFinalRows = 3,  // the same, of a tile that this store never seals: not to be encoded, or rounded
};

// What one store holds of one tile.
struct TileContent {
  ContentKind kind = ContentKind::kNothing;
  std::span<const std::uint8_t> bytes;
  std::uint32_t bits = 0;                         // of the records; 0: those of the store
  std::shared_ptr<const QueryHistory> history;    // of the queries up to the end of the tile, where the tile has one
  std::span<const std::uint8_t> history_bytes;    // on the way into a cache: what that history spells
  std::span<const std::uint8_t> samples;          // of the queries of an open tile
  std::optional<std::uint64_t> records_checksum;  // of `bytes`, where it is known without reading them
  std::shared_ptr<const void> owner;  // on the way into a cache: not null: records stay where they are as long as it
};

// Memory for what a cache does not hold as bytes; used again from call to call.
struct ContentBuffer {
  std::vector<HalfBits> rows;
  std::vector<std::uint8_t> samples;
};

// A cache whose sequences can be taken apart. Tiles and stores go by their place in the layout.
class SnapshotSource {
 public:
  virtual const CacheConfig& config() const = 0;
  // How a sequence lies in tiles. cells: of its tokens, in their order; a cache without cells looks at their number
  // alone. Everything that tile_content() tells of it stays good until the cache is used for anything else.
  // kInvalidArgument: there is no such sequence; kOutOfOrder, kOutOfMemory: the state of the cache does not allow it;
  // kCorrupt: records of somebody else that had to be read are damaged.
  virtual Result<SequenceLayout> sequence_layout(std::uint32_t stream, std::span<const std::uint32_t> cells) = 0;
  // What one store holds of one tile. The bytes are the cache's or the buffer's.
  virtual TileContent tile_content(const SequenceLayout& layout, std::uint32_t tile, std::uint32_t store,
                                   ContentBuffer& buffer) const = 0;

 protected:
  ~SnapshotSource() = default;
};

// A cache that takes sequences of another one, or of a file: first how one lies in tiles, then what each store holds of
// each tile, then the end. Nothing of a layout or a content is taken for granted.
class SnapshotTarget {
 public:
  // Makes room and fills in the layout's numbers in the cache at hand. kInvalidArgument: it does not fit this cache
  // (stores, tile length, widths, version of records, heads) or itself; kOutOfOrder; kFull: more tokens than the cache
  // has room for. Nothing was changed then.
  virtual Status place_sequence(std::uint32_t stream, SequenceLayout& layout, std::span<const std::uint32_t> cells) = 0;
  // kCorrupt: the content is none of this store and tile, or its records are invalid; kInvalidArgument: records of a
  // width that this cache does not take; kOutOfMemory. Records of somebody else are looked at when they are first
  // attended to.
  virtual Status fill_tile(const SequenceLayout& layout, std::uint32_t tile, std::uint32_t store,
                           const TileContent& content) = 0;
  // What is known of the queries up to the end of a tile, for those that share it; nullptr: nothing.
  virtual std::shared_ptr<const QueryHistory> tile_history(const SequenceLayout& layout, std::uint32_t tile,
                                                           std::uint32_t store) const = 0;
  // kInvalidArgument: the whole does not fit this cache.
  virtual Status finish_sequence(const SequenceLayout& layout) = 0;
  // Instead of the end: nothing of the sequence stays.
  virtual void abandon_sequence(const SequenceLayout& layout, std::span<const std::uint32_t> cells) = 0;

 protected:
  ~SnapshotTarget() = default;
};

}  // namespace kvarn
