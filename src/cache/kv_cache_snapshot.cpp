// The part of KvCache that takes sequences apart and puts them together (snapshot.hpp).
#include <algorithm>

#include "cache/kv_cache.hpp"
#include "cache/tile_filling.hpp"

namespace kvarn {
Result<SequenceLayout> KvCache::sequence_layout(std::uint32_t stream, std::span<const std::uint32_t> cells) {
  if (const Status status = end_transfers(); status != Status::kOk) return status;
  if (stream >= map_.stream_count()) return Status::kInvalidArgument;
  const Stream& source = map_.stream(stream);
  SequenceLayout layout;
  layout.tile_tokens = config_.tile_tokens;
  layout.version = config_.version;
  layout.windowed = source.windowed;
  layout.window_hits = source.window_hits;
  layout.stream = stream;
  for (StoreId id = 0; id < stores_.size(); ++id) {
    if (retired_[id]) continue;
    const RowStore& store = stores_[id];
    layout.stores.push_back(
        {store.layer(), store.side(), store.row_values(), store.dim(), store.query_heads(), store.bits()});
    layout.store_ids.push_back(id);
  }
  std::vector<std::vector<std::uint32_t>> tokens(source.refs.size());  // by list entry, then row
  for (std::uint32_t token = 0; token < cells.size(); ++token) {
    const Place place = cells[token] < map_.cells() ? source.places[cells[token]] : Place{};
    if (!place) return Status::kInvalidArgument;
    std::vector<std::uint32_t>& rows = tokens[place.ref()];
    if (rows.empty()) rows.assign(config_.tile_tokens, SequenceTile::kNone);
    if (rows[place.row] != SequenceTile::kNone) return Status::kInvalidArgument;
    rows[place.row] = token;
  }
  std::vector<std::uint32_t> order;
  for (std::uint32_t ref = 0; ref < tokens.size(); ++ref) {
    if (!tokens[ref].empty()) order.push_back(ref);
  }
  const auto tile_of = [&](std::uint32_t ref) -> const Tile& { return map_.tile(source.refs[ref].tile); };
  std::sort(order.begin(), order.end(),
            [&](std::uint32_t left, std::uint32_t right) { return comes_before(tile_of(left), tile_of(right)); });
  std::map<std::uint64_t, std::uint32_t> number_of_serial;
  for (const std::uint32_t ref : order) {
    layout.tiles.push_back(describe_tile(source.refs[ref], std::move(tokens[ref])));
    const Tile& tile = tile_of(ref);
    const auto parent = number_of_serial.find(tile.parent_serial);
    if (tile.parent_serial != 0 && parent != number_of_serial.end() &&
        tile.parent_row < layout.tiles[parent->second].used()) {
      layout.tiles.back().parent = parent->second;
      layout.tiles.back().parent_row = tile.parent_row;
    }
    number_of_serial.emplace(tile.serial, static_cast<std::uint32_t>(layout.tiles.size() - 1));
  }
  return layout;
}

SequenceTile KvCache::describe_tile(const TileRef& ref, std::vector<std::uint32_t> tokens) const {
  const Tile& tile = map_.tile(ref.tile);
  SequenceTile saved;
  saved.start_rank = tile.start_rank;
  saved.observed_rank = tile.observed_rank;
  saved.counted_row = tile.counted_row;
  saved.counted = tile.counted;
  saved.state = tile.state;
  saved.ranked = tile.ranked;
  saved.id = ref.tile;
  saved.travels_whole = true;
  for (std::uint32_t row = 0; row < tokens.size(); ++row) {
    const bool is_others = tokens[row] == SequenceTile::kNone && ref.cells[row] != TileView::kNoCell;
    saved.travels_whole = saved.travels_whole && !is_others;
  }
  if (!saved.travels_whole) saved.state = TileState::kOpen;
  tokens.resize(tile.used);
  // Rows behind the last one of the sequence belong to another one, or the engine has dropped them.
  while (saved.state == TileState::kOpen && tokens.back() == SequenceTile::kNone) tokens.pop_back();
  saved.tokens = std::move(tokens);
  return saved;
}

TileContent KvCache::tile_content(const SequenceLayout& layout, std::uint32_t number, std::uint32_t store_number,
                                  ContentBuffer& buffer) const {
  const SequenceTile& tile = layout.tiles[number];
  const RowStore& store = stores_[layout.store_ids[store_number]];
  TileContent content;
  if (tile.travels_whole) {
    content.history = store.history(tile.id);
    buffer.samples = store.sample_bytes(tile.id);
    content.samples = buffer.samples;
    if (store.sealed(tile.id)) {
      content.kind = ContentKind::kRecords;
      content.bytes = {store.view(tile.id).records, store.records_bytes()};
      content.records_checksum = store.foreign_checksum(tile.id);
      return content;
    }
  }
  if (!store.holds(tile.id)) return content;
  content.kind = tile.travels_whole && store.settled(tile.id) ? ContentKind::kFinalRows : ContentKind::kRows;
  buffer.rows.assign(std::size_t{tile.used()} * store.row_values(), 0);
  for (std::uint32_t row = 0; row < tile.used(); ++row) {
    if (tile.tokens[row] == SequenceTile::kNone) continue;
    store.read_row(tile.id, row, buffer.rows.data() + std::size_t{row} * store.row_values());
  }
  content.bytes = {reinterpret_cast<const std::uint8_t*>(buffer.rows.data()), buffer.rows.size() * sizeof(HalfBits)};
  return content;
}

std::optional<StoreId> KvCache::store_for(const StoreShape& shape) const {
  for (StoreId id = 0; id < stores_.size(); ++id) {
    const RowStore& store = stores_[id];
    if (retired_[id] || store.layer() != shape.layer || store.side() != shape.side) continue;
    const std::uint32_t heads = store.query_heads();
    const bool fits = store.row_values() == shape.row_values && store.bits() == shape.bits &&
                      (store.dim() == 0 || shape.dim == 0 || store.dim() == shape.dim) &&
                      (heads == 0 || shape.query_heads == 0 || heads == shape.query_heads);
    return fits ? std::optional(id) : std::nullopt;
  }
  return std::nullopt;
}

bool KvCache::fits_layout(const SequenceLayout& layout, std::span<const std::uint32_t> cells) const {
  if (layout.tile_tokens != config_.tile_tokens || layout.version != config_.version) return false;
  if (!valid_layout(layout)) return false;
  const auto kept = static_cast<std::size_t>(std::count(retired_.begin(), retired_.end(), false));
  std::vector<bool> is_taken(stores_.size());
  for (const StoreShape& shape : layout.stores) {
    const auto store = store_for(shape);
    if (!store || is_taken[*store]) return false;
    is_taken[*store] = true;
  }
  std::size_t tokens = 0;
  std::vector<bool> is_placed(cells.size());
  for (const SequenceTile& tile : layout.tiles) {
    for (const std::uint32_t token : tile.tokens) {
      if (token == SequenceTile::kNone) continue;
      if (token >= cells.size() || is_placed[token]) return false;
      is_placed[token] = true;
      ++tokens;
    }
  }
  std::vector<std::uint32_t> sorted(cells.begin(), cells.end());
  std::sort(sorted.begin(), sorted.end());
  const bool apart = std::adjacent_find(sorted.begin(), sorted.end()) == sorted.end();
  return layout.stores.size() == kept && tokens == cells.size() && apart &&
         (sorted.empty() || sorted.back() < map_.cells());
}

void KvCache::learn_shape(StoreId id, const StoreShape& shape) {
  RowStore& store = stores_[id];
  if (shape.dim == 0) return;
  if (store.dim() == 0) {
    const std::size_t head_bytes = record_bytes(config_.record_shape(shape.side, shape.dim));
    store.set_heads(shape.dim, &pool(record_pools_, head_bytes * (shape.row_values / shape.dim)));
  }
  if (store.query_heads() == 0 && shape.query_heads != 0) store.set_query_heads(shape.query_heads);
}

void KvCache::drop_cells(std::uint32_t stream, std::span<const std::uint32_t> cells) {
  (void)end_transfers();
  for (const std::uint32_t cell : cells) map_.remove(map_.stream(stream), cell);
  drop_released();
}

Status KvCache::place_sequence(std::uint32_t stream, SequenceLayout& layout, std::span<const std::uint32_t> cells) {
  if (const Status status = end_transfers(); status != Status::kOk) return status;
  if (stream >= map_.stream_count() || !fits_layout(layout, cells)) return Status::kInvalidArgument;
  drop_cells(stream, cells);
  layout.stream = stream;
  layout.store_ids.clear();
  for (const StoreShape& shape : layout.stores) {
    layout.store_ids.push_back(*store_for(shape));
    learn_shape(layout.store_ids.back(), shape);
  }
  Stream& target = map_.stream(stream);
  for (SequenceTile& tile : layout.tiles) {
    place_tile(target, tile, cells);
    if (tile.parent != SequenceTile::kNone) map_.set_parent(tile.id, layout.tiles[tile.parent].id, tile.parent_row);
  }
  return Status::kOk;
}

void KvCache::place_tile(Stream& stream, SequenceTile& tile, std::span<const std::uint32_t> cells) {
  const Place at = map_.add_tile(stream);
  tile.id = stream.refs[at.ref()].tile;
  for (std::uint32_t row = 0; row < tile.used(); ++row) {
    if (tile.tokens[row] != SequenceTile::kNone) map_.put(stream, cells[tile.tokens[row]], Place{at.ref_plus_one, row});
  }
  Tile& placed = map_.tile(tile.id);
  placed.used = tile.used();
  placed.start_rank = tile.start_rank;
  placed.observed_rank = tile.observed_rank;
  placed.counted_row = tile.counted_row;
  placed.counted = tile.counted;
  placed.ranked = tile.ranked;
}

Status KvCache::fill_tile(const SequenceLayout& layout, std::uint32_t tile, std::uint32_t store,
                          const TileContent& content) {
  return fill_store(stores_[layout.store_ids[store]], layout.tiles[tile], content);
}

Status KvCache::finish_sequence(const SequenceLayout& layout) {
  for (const SequenceTile& tile : layout.tiles) {
    if (tile.state == TileState::kOpen) continue;
    map_.tile(tile.id).state = TileState::kSealing;
    map_.sealing().push_back(tile.id);
  }
  finish_sealing();
  Stream& target = map_.stream(layout.stream);
  target.windowed = target.windowed || layout.windowed;
  target.window_hits = std::max(target.window_hits, layout.window_hits);
  return Status::kOk;
}

void KvCache::abandon_sequence(const SequenceLayout& layout, std::span<const std::uint32_t> cells) {
  drop_cells(layout.stream, cells);
}

std::shared_ptr<const QueryHistory> KvCache::tile_history(const SequenceLayout& layout, std::uint32_t tile,
                                                          std::uint32_t store) const {
  return stores_[layout.store_ids[store]].history(layout.tiles[tile].id);
}

Status KvCache::check_foreign(StoreId k, StoreId v, const BatchMask& mask, const Runner& runner) {
  std::vector<UncheckedTile> unchecked;
  for (const StoreId id : {k, v}) {
    if (!stores_[id].has_unchecked()) continue;
    for (const QueryRun& run : planner_.plan().runs) {
      for (const std::uint32_t ref : run.refs) {
        const TileId tile = map_.stream(mask.first_stream + run.slice).refs[ref].tile;
        if (stores_[id].is_unchecked(tile)) unchecked.push_back({&stores_[id], tile});
      }
    }
  }
  return check_records(unchecked, runner);
}

}  // namespace kvarn
