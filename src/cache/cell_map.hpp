// Which token is where: per stream a map cell -> (tile, row), shared by all layers. Tiles hold one sequence each, in
// write order; several streams may share a tile (copy-on-write). Knows no bytes of rows: stores follow by tile number.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <vector>

#include "attention/attend.hpp"
#include "cache/row_store.hpp"

namespace kvarn {

// A fixed-size array that reads as zeros and takes memory only where it is written.
template <class T>
class LazyArray {
 public:
  explicit LazyArray(std::size_t count) : data_(static_cast<T*>(std::calloc(count, sizeof(T)))), count_(count) {}
  T& operator[](std::size_t index) { return data_.get()[index]; }
  const T& operator[](std::size_t index) const { return data_.get()[index]; }
  void clear() { data_.reset(static_cast<T*>(std::calloc(count_, sizeof(T)))); }

 private:
  struct Free {
    void operator()(T* memory) const { std::free(memory); }
  };
  std::unique_ptr<T, Free> data_;
  std::size_t count_;
};

// Where a cell's row is: a tile of the stream's list and a row of it. Zero means nowhere.
struct Place {
  std::uint32_t ref_plus_one = 0;
  std::uint32_t row = 0;
  explicit operator bool() const { return ref_plus_one != 0; }
  std::uint32_t ref() const { return ref_plus_one - 1; }
  friend bool operator==(const Place&, const Place&) = default;
};

enum class TileState : std::uint8_t {
  kOpen,     // rows may be added
  kSealing,  // complete and old enough: every store encodes it when its turn comes
  kSealed,   // encoded, or kept exact for good, by every store
};

// One tile, whatever streams share it.
struct Tile {
  std::uint64_t serial = 0;         // unique over the life of the map, in order of creation
  std::uint64_t start_rank = 0;     // rank (position in write order of its sequence) of row 0, once ranked
  std::uint64_t parent_serial = 0;  // tile and row of the token before row 0; serial 0: none
  std::uint32_t parent_row = 0;
  TileId parent_tile = 0;           // the tile that has parent_serial as long as it lives
  std::uint32_t refs = 0;           // streams that list it
  std::uint32_t used = 0;           // rows handed out
  std::uint32_t newest_row = 0;     // the row that was given a token last
  std::uint64_t observed_rank = 0;  // largest rank at which a micro-batch that sees it began
  std::uint32_t counted_row = 0;    // a row whose query saw `counted` cells: tells sliding windows from growth
  std::uint32_t counted = 0;
  TileState state = TileState::kOpen;
  bool ranked = false;  // start_rank is known
};

// The order of the tiles of a sequence: by rank, those that have none yet at the end, in order of creation.
inline bool comes_before(const Tile& left, const Tile& right) {
  if (left.ranked != right.ranked) return left.ranked;
  return left.start_rank != right.start_rank ? left.start_rank < right.start_rank : left.serial < right.serial;
}

// One stream's view of one tile.
struct TileRef {
  TileId tile = 0;
  std::uint32_t live = 0;            // rows that hold a token of this stream; 0: the entry is free
  std::vector<std::uint32_t> cells;  // [tile_tokens], TileView::kNoCell where no token is
};

struct Stream {
  explicit Stream(std::size_t cells) : places(cells) {}
  LazyArray<Place> places;
  std::vector<TileRef> refs;
  std::vector<std::uint32_t> free_refs;
  std::uint64_t version = 1;        // grows with every change of the map of this stream
  std::uint64_t clone_version = 0;  // own version right after it became a copy of clone_source
  std::uint32_t clone_source = 0;
  std::uint64_t source_version = 0;
  Place restore_at;  // last row given to a token that came without a mask, and its tile's serial
  std::uint64_t restore_serial = 0;
  std::uint32_t window_hits = 0;
  bool windowed = false;  // a sliding window recycles its cells: only what is long past is sealed
};

class CellMap {
 public:
  CellMap(std::uint32_t streams, std::uint32_t cells, std::uint32_t tile_tokens);

  std::uint32_t cells() const { return cells_; }
  std::uint32_t tile_tokens() const { return tile_tokens_; }
  std::uint32_t stream_count() const { return static_cast<std::uint32_t>(streams_.size()); }
  Stream& stream(std::uint32_t index) { return streams_[index]; }
  const Stream& stream(std::uint32_t index) const { return streams_[index]; }
  Tile& tile(TileId id) { return tiles_[id]; }
  const Tile& tile(TileId id) const { return tiles_[id]; }
  Tile& tile_at(const Stream& stream, Place place) { return tiles_[stream.refs[place.ref()].tile]; }
  // Says that the token in this row comes right before row 0 of `id`.
  void set_parent(TileId id, TileId parent, std::uint32_t parent_row);
  // The complete tile before this one in its sequence: the one whose last row its first token follows. Where a sequence
  // left a tile in the middle, the rows of that tile are passed over. Nothing at the start of a sequence, after a row
  // whose sequence was not known, or if a tile in between is gone.
  std::optional<TileId> complete_before(TileId id) const;
  std::uint64_t version() const;
  std::uint64_t live_cells() const { return live_cells_; }
  std::size_t bytes() const;
  // The same for one sequence of so many tokens, all of which have a cell.
  static std::size_t bytes_of(std::uint64_t tokens, std::uint32_t tile_tokens);

  // Puts a cell into a row of a listed tile; the row must be free and the cell nowhere.
  void put(Stream& stream, std::uint32_t cell, Place place);
  // Takes a cell from its row. A tile without rows leaves the list; one in no list is released.
  void remove(Stream& stream, std::uint32_t cell);
  // A new open tile at the end of the stream's list, with no rows yet. Call put() for row 0 next.
  Place add_tile(Stream& stream);
  // Row `used` of an open tile that belongs to this stream alone.
  Place take_next_row(Stream& stream, std::uint32_t ref);
  // Makes `to` list the same tiles and cells as `from`.
  void clone(std::uint32_t from, std::uint32_t to);
  // Replaces the tile of a list entry by a new one with the same rows, for this stream alone; returns the new tile.
  TileId privatize(Stream& stream, std::uint32_t ref);
  void clear();
  // All streams are those of a sliding window, now and after clear().
  void expect_window();
  bool expects_window() const { return expects_window_; }

  // Tiles that no stream lists any more; the caller drops their bytes and calls recycle().
  const std::vector<TileId>& released() const { return released_; }
  void recycle();
  std::vector<TileId>& sealing() { return sealing_; }

 private:
  TileId new_tile();
  void unlist(Stream& stream, std::uint32_t ref);

  std::uint32_t cells_;
  std::uint32_t tile_tokens_;
  bool expects_window_ = false;
  std::vector<Stream> streams_;
  std::vector<Tile> tiles_;
  std::vector<TileId> free_tiles_;
  std::vector<TileId> released_;
  std::vector<TileId> sealing_;  // tiles in state kSealing
  std::uint64_t next_serial_ = 1;
  std::uint64_t live_cells_ = 0;
};

}  // namespace kvarn
