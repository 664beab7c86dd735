#include "cache/cell_map.hpp"

#include <algorithm>

namespace kvarn {

CellMap::CellMap(std::uint32_t streams, std::uint32_t cells, std::uint32_t tile_tokens)
    : cells_(cells), tile_tokens_(tile_tokens) {
  streams_.reserve(streams);
  for (std::uint32_t index = 0; index < streams; ++index) streams_.emplace_back(cells);
}

std::uint64_t CellMap::version() const {
  std::uint64_t sum = 0;
  for (const Stream& stream : streams_) sum += stream.version;
  return sum;
}

std::size_t CellMap::bytes() const {
  std::size_t total = tiles_.capacity() * sizeof(Tile);
  for (const Stream& stream : streams_) {
    std::size_t listed = 0;
    for (const TileRef& ref : stream.refs) listed += ref.cells.capacity();
    // A listed row has one entry in its tile's cell list and one place.
    total += stream.refs.capacity() * sizeof(TileRef) + listed * (sizeof(std::uint32_t) + sizeof(Place));
  }
  return total;
}

std::size_t CellMap::bytes_of(std::uint64_t tokens, std::uint32_t tile_tokens) {
  const std::uint64_t tiles = (tokens + tile_tokens - 1) / tile_tokens;
  return tiles * (sizeof(Tile) + sizeof(TileRef) + tile_tokens * (sizeof(std::uint32_t) + sizeof(Place)));
}

TileId CellMap::new_tile() {
  TileId id;
  if (free_tiles_.empty()) {
    id = static_cast<TileId>(tiles_.size());
    tiles_.emplace_back();
  } else {
    id = free_tiles_.back();
    free_tiles_.pop_back();
    tiles_[id] = Tile{};
  }
  tiles_[id].serial = next_serial_++;
  return id;
}

void CellMap::set_parent(TileId id, TileId parent, std::uint32_t parent_row) {
  tiles_[id].parent_serial = tiles_[parent].serial;
  tiles_[id].parent_tile = parent;
  tiles_[id].parent_row = parent_row;
}

std::optional<TileId> CellMap::complete_before(TileId id) const {
  for (const Tile* tile = &tiles_[id]; tile->parent_serial != 0;) {  // a parent is older: the walk ends
    const Tile& parent = tiles_[tile->parent_tile];
    if (parent.serial != tile->parent_serial || parent.refs == 0) return std::nullopt;
    if (tile->parent_row + 1 == tile_tokens_) return tile->parent_tile;
    tile = &parent;
  }
  return std::nullopt;
}

void CellMap::put(Stream& stream, std::uint32_t cell, Place place) {
  TileRef& ref = stream.refs[place.ref()];
  ref.cells[place.row] = cell;
  tiles_[ref.tile].newest_row = place.row;
  ++ref.live;
  ++live_cells_;
  stream.places[cell] = place;
  ++stream.version;
}

void CellMap::remove(Stream& stream, std::uint32_t cell) {
  const Place place = stream.places[cell];
  if (!place) return;
  stream.places[cell] = Place{};
  ++stream.version;
  --live_cells_;
  TileRef& ref = stream.refs[place.ref()];
  ref.cells[place.row] = TileView::kNoCell;
  if (--ref.live == 0) unlist(stream, place.ref());
}

void CellMap::unlist(Stream& stream, std::uint32_t ref) {
  const TileId id = stream.refs[ref].tile;
  stream.refs[ref].cells.clear();
  stream.refs[ref].cells.shrink_to_fit();
  stream.refs[ref].live = 0;
  stream.free_refs.push_back(ref);
  if (--tiles_[id].refs == 0) {
    if (tiles_[id].state == TileState::kSealing) std::erase(sealing_, id);
    released_.push_back(id);
  }
}

Place CellMap::add_tile(Stream& stream) {
  const TileId id = new_tile();
  std::uint32_t index;
  if (stream.free_refs.empty()) {
    index = static_cast<std::uint32_t>(stream.refs.size());
    stream.refs.emplace_back();
  } else {
    index = stream.free_refs.back();
    stream.free_refs.pop_back();
  }
  TileRef& ref = stream.refs[index];
  ref.tile = id;
  ref.live = 0;
  ref.cells.assign(tile_tokens_, TileView::kNoCell);
  tiles_[id].refs = 1;
  tiles_[id].used = 1;
  return Place{index + 1, 0};
}

Place CellMap::take_next_row(Stream& stream, std::uint32_t ref) {
  return Place{ref + 1, tiles_[stream.refs[ref].tile].used++};
}

void CellMap::clone(std::uint32_t from, std::uint32_t to) {
  Stream& source = streams_[from];
  Stream& target = streams_[to];
  for (TileRef& ref : source.refs) {
    if (ref.live != 0) ++tiles_[ref.tile].refs;  // first, so that tiles both list are not released below
  }
  for (std::uint32_t cell = 0; cell < cells_; ++cell) remove(target, cell);
  target.refs = source.refs;
  target.free_refs = source.free_refs;
  target.restore_at = Place{};
  target.windowed = source.windowed;
  target.window_hits = source.window_hits;
  for (std::uint32_t cell = 0; cell < cells_; ++cell) {
    const Place place = source.places[cell];
    if (!place) continue;
    target.places[cell] = place;
    ++live_cells_;
  }
  target.clone_source = from;
  target.source_version = source.version;
  target.clone_version = ++target.version;
}

TileId CellMap::privatize(Stream& stream, std::uint32_t ref) {
  const TileId old_id = stream.refs[ref].tile;
  const TileId id = new_tile();
  const std::uint64_t serial = tiles_[id].serial;
  tiles_[id] = tiles_[old_id];
  tiles_[id].serial = serial;
  tiles_[id].refs = 1;
  if (tiles_[id].state == TileState::kSealing) sealing_.push_back(id);
  --tiles_[old_id].refs;
  stream.refs[ref].tile = id;
  ++stream.version;
  return id;
}

void CellMap::clear() {
  for (Stream& stream : streams_) {
    for (std::uint32_t ref = 0; ref < stream.refs.size(); ++ref) {
      if (stream.refs[ref].live != 0) unlist(stream, ref);
    }
    const std::uint64_t version = stream.version + 1;
    stream = Stream(cells_);
    stream.version = version;
    stream.windowed = expects_window_;
  }
  live_cells_ = 0;
}

void CellMap::expect_window() {
  expects_window_ = true;
  for (Stream& stream : streams_) stream.windowed = true;
}

void CellMap::recycle() {
  free_tiles_.insert(free_tiles_.end(), released_.begin(), released_.end());
  released_.clear();
}

}  // namespace kvarn
