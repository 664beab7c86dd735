// The part of KvCache that speaks with an engine's own save and restore: rows out as values or fragments, and back in.
#include <algorithm>
#include <cstring>

#include "cache/kv_cache.hpp"

namespace kvarn {

void KvCache::read_state_rows(StoreId id, std::uint32_t stream, std::uint32_t first_cell, std::uint32_t count,
                              HalfBits* rows) {
  (void)settle_restore();
  save_.note(id, stream, first_cell, count);
  const std::uint32_t row_values = stores_[id].row_values();
  for (std::uint32_t cell = first_cell; cell < first_cell + count; ++cell, rows += row_values) {
    if (const auto fragment = save_.fragment(cell)) {
      pack_fragment(*fragment, {rows, row_values});
    } else {
      read_row(id, stream, cell, rows);
    }
  }
}

Status KvCache::write_state_row(StoreId id, std::uint32_t stream, std::uint32_t cell, const HalfBits* values) {
  if (stream >= map_.stream_count() || cell >= map_.cells()) return Status::kOutOfRange;
  save_.end();
  if (!restore_.goes_on(id, stream, cell)) {
    const Status status = settle_restore();
    restore_.begin(id, stream);
    map_.stream(stream).restore_at = Place{};  // the first row starts a tile
    if (status != Status::kOk) return status;
  }
  // The token that had this cell is no more: rows of it in other stores are not worth carrying along.
  Stream& target = map_.stream(stream);
  if (restore_.arrive(id, cell)) {
    map_.remove(target, cell);
    planner_.place_unseen(target, cell);
    drop_released();
  }
  const RowStore& store = stores_[id];
  std::vector<std::uint8_t> bytes(std::size_t{store.row_values()} * sizeof(HalfBits));
  const auto fragment = unpack_fragment({values, store.row_values()}, bytes);
  const bool fits = fragment && store.dim() == fragment->dim && fragment->bits == code_kind(store.shape()) &&
                    fragment->tile_tokens == config_.tile_tokens && fragment->row < config_.tile_tokens &&
                    fragment->fragments <= config_.tile_tokens;
  if (fits && restore_.add(id, cell, *fragment)) return Status::kOk;
  return write_values(id, stream, cell, values);
}

Status KvCache::end_transfers() {
  const Status status = settle_restore();
  save_.end();
  return status;
}

Status KvCache::settle_restore() {
  if (!restore_.is_open()) return Status::kOk;
  const std::uint32_t stream = restore_.stream();
  RestorePlan plan = restore_.plan();
  Status result = Status::kOk;
  for (RestorePlan::Tile& tile : plan.tiles) {
    std::erase_if(tile.contents, [&](const RestorePlan::StoreContent& content) {
      if (stores_[content.store].records_valid(content.record)) return false;
      if (content.payload != RestorePlan::StoreContent::kNoPayload)
        restore_.payloads()[content.payload].is_used = false;
      return true;
    });
  }
  for (const ArrivingPayload& payload : restore_.payloads()) {
    if (payload.is_used) continue;
    if (const Status status = write_spelled(payload, stream); status != Status::kOk) result = status;
  }
  std::vector<TileId> placed;  // by position in the plan
  std::vector<std::uint32_t> numbers;
  for (const RestorePlan::Tile& tile : plan.tiles) {
    const TileId id = place_restored(tile, stream);
    const auto parent = std::lower_bound(numbers.begin(), numbers.end(), tile.saved.parent);
    const bool has_parent = parent != numbers.end() && *parent == tile.saved.parent;
    if (has_parent)
      map_.set_parent(id, placed[static_cast<std::size_t>(parent - numbers.begin())], tile.saved.parent_row);
    numbers.push_back(tile.saved.number);
    placed.push_back(id);
    if (const Status status = fill_restored(tile, id); status != Status::kOk) result = status;
  }
  restore_.close();
  drop_released();
  return result;
}

// Fragments that came to nothing are the numbers they spell.
Status KvCache::write_spelled(const ArrivingPayload& payload, std::uint32_t stream) {
  std::vector<HalfBits> row(stores_[payload.store].row_values());
  Status result = Status::kOk;
  for (const ArrivingPayload::Piece& piece : payload.pieces) {
    StateFragment fragment = piece.fragment;
    fragment.share = payload.share_of(piece);
    pack_fragment(fragment, row);
    const Status status = write_values(payload.store, stream, piece.cell, row.data());
    if (status != Status::kOk) result = status;
  }
  return result;
}

TileId KvCache::place_restored(const RestorePlan::Tile& tile, std::uint32_t stream) {
  Stream& target = map_.stream(stream);
  const auto is_at_home = [&](const RestorePlan::Row& row) {
    return target.places[row.cell] == Place{target.places[tile.rows[0].cell].ref_plus_one, row.row};
  };
  Place at = target.places[tile.rows[0].cell];
  const bool stays = at && map_.tile_at(target, at).state == TileState::kOpen && map_.tile_at(target, at).refs == 1 &&
                     target.refs[at.ref()].live == tile.rows.size() &&
                     std::all_of(tile.rows.begin(), tile.rows.end(), is_at_home);
  if (!stays) {
    at = map_.add_tile(target);
    const TileId id = target.refs[at.ref()].tile;
    for (const RestorePlan::Row& row : tile.rows) {
      const Place from = target.places[row.cell];
      if (from) move_restored(tile, {target.refs[from.ref()].tile, from.row, id, row.row});
      map_.remove(target, row.cell);
      map_.put(target, row.cell, Place{at.ref_plus_one, row.row});
    }
  }
  Tile& placed = map_.tile_at(target, at);
  placed.used = tile.saved.used;
  placed.start_rank = tile.saved.start_rank;
  placed.ranked = tile.saved.ranked != 0;
  return target.refs[at.ref()].tile;
}

// Only where a row goes as values: a record brings its own.
void KvCache::move_restored(const RestorePlan::Tile& tile, const RowMove& move) {
  std::vector<HalfBits> row;
  for (StoreId id = 0; id < stores_.size(); ++id) {
    const auto brings = [&](const RestorePlan::StoreContent& content) { return content.store == id; };
    if (retired_[id] || std::any_of(tile.contents.begin(), tile.contents.end(), brings)) continue;
    row.resize(stores_[id].row_values());
    stores_[id].read_row(move.from_tile, move.from_row, row.data());
    (void)stores_[id].write_row(move.to_tile, move.to_row, row.data());
  }
}

Status KvCache::fill_restored(const RestorePlan::Tile& tile, TileId id) {
  for (const RestorePlan::StoreContent& content : tile.contents) {
    RowStore& store = stores_[content.store];
    if (store.sealed(id)) continue;
    std::uint8_t* record = store.allocate_record();
    if (record == nullptr) return Status::kOutOfMemory;
    std::memcpy(record, content.record.data(), content.record.size());
    store.adopt_record(id, record);
    (void)store.restore_history(id, content.history);
  }
  for (const RestorePlan::Samples& samples : tile.samples) {
    (void)stores_[samples.store].restore_samples(id, samples.bytes);
  }
  if (tile.contents.empty()) return Status::kOk;
  bool all_settled = true;
  for (StoreId store = 0; store < stores_.size(); ++store) all_settled &= retired_[store] || stores_[store].settled(id);
  Tile& placed = map_.tile(id);
  placed.state = all_settled ? TileState::kSealed : TileState::kSealing;
  placed.observed_rank = placed.start_rank + placed.used + config_.tail_tokens;
  if (!all_settled) map_.sealing().push_back(id);
  return Status::kOk;
}

}  // namespace kvarn
