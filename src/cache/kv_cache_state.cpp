// The part of KvCache that speaks with an engine's own save and restore: rows out as values or fragments, and back in.
#include <algorithm>
#include <array>
#include <cstring>

#include "cache/kv_cache.hpp"
#include "format/record_check.hpp"

namespace kvarn {

bool KvCache::travels_as_fragments(const RowStore& store, const TileRef& ref, std::uint32_t first_cell,
                                   std::uint32_t count) const {
  if (!store.sealed(ref.tile) ||
      !fragment_fits(static_cast<std::uint32_t>(store.records_bytes()), ref.live, store.row_values())) {
    return false;
  }
  return std::all_of(ref.cells.begin(), ref.cells.end(), [&](std::uint32_t cell) {
    return cell == TileView::kNoCell || (cell >= first_cell && cell - first_cell < count);
  });
}

void KvCache::read_state_rows(StoreId id, std::uint32_t stream, std::uint32_t first_cell, std::uint32_t count,
                              HalfBits* rows) const {
  const RowStore& store = stores_[id];
  const Stream& source = map_.stream(stream);
  std::uint32_t last_ref = 0;
  bool has_last = false;
  bool as_fragments = false;
  std::uint64_t hash = 0;
  std::array<std::uint16_t, 256> index_of_row{};
  for (std::uint32_t offset = 0; offset < count; ++offset) {
    const std::uint32_t cell = first_cell + offset;
    HalfBits* row = rows + std::size_t{offset} * store.row_values();
    const Place place = source.places[cell];
    if (!place) {
      read_row(id, stream, cell, row);
      continue;
    }
    const TileRef& ref = source.refs[place.ref()];
    if (!has_last || last_ref != place.ref()) {
      has_last = true;
      last_ref = place.ref();
      as_fragments = travels_as_fragments(store, ref, first_cell, count);
      if (as_fragments) hash = hash_bytes({store.view(ref.tile).records, store.records_bytes()}, 0);
      std::uint16_t index = 0;
      for (std::uint32_t at = 0; at < ref.cells.size(); ++at) {
        index_of_row[at] = index;
        if (ref.cells[at] != TileView::kNoCell) ++index;
      }
    }
    if (!as_fragments) {
      read_row(id, stream, cell, row);
      continue;
    }
    const auto bytes = static_cast<std::uint32_t>(store.records_bytes());
    const std::uint32_t share = share_bytes(bytes, ref.live);
    const std::uint32_t first = std::min(bytes, share * index_of_row[place.row]);
    const StateFragment fragment{static_cast<std::uint16_t>(place.row),
                                 index_of_row[place.row],
                                 static_cast<std::uint16_t>(ref.live),
                                 static_cast<std::uint16_t>(store.dim()),
                                 static_cast<std::uint16_t>(config_.tile_tokens),
                                 static_cast<std::uint16_t>(store.bits()),
                                 bytes,
                                 hash,
                                 {store.view(ref.tile).records + first, std::min(share, bytes - first)}};
    pack_fragment(fragment, {row, store.row_values()});
  }
}

void KvCache::place_fragment(std::uint32_t stream, std::uint32_t cell, const StateFragment& fragment) {
  Stream& target = map_.stream(stream);
  const Place at = target.places[cell];
  if (at && at.row == fragment.row) {
    const Tile& tile = map_.tile_at(target, at);
    if (tile.state == TileState::kOpen && tile.refs == 1) return;  // another layer's fragment came before
  }
  map_.remove(target, cell);
  Place place = target.fragment_at;
  const bool fits = place && target.fragment_hash == fragment.records_hash && place.ref() < target.refs.size() &&
                    target.refs[place.ref()].live > 0 && map_.tile_at(target, place).serial == target.fragment_serial &&
                    target.refs[place.ref()].cells[fragment.row] == TileView::kNoCell;
  if (!fits) {
    place = map_.add_tile(target);
    map_.tile_at(target, place).used = config_.tile_tokens;
    target.fragment_at = place;
    target.fragment_hash = fragment.records_hash;
    target.fragment_serial = map_.tile_at(target, place).serial;
    target.restore_at = Place{};
  }
  map_.put(target, cell, Place{place.ref_plus_one, fragment.row});
  drop_released();
}

Status KvCache::write_state_row(StoreId id, std::uint32_t stream, std::uint32_t cell, const HalfBits* values) {
  if (stream >= map_.stream_count() || cell >= map_.cells()) return Status::kOutOfRange;
  const RowStore& store = stores_[id];
  std::vector<std::uint8_t> bytes(std::size_t{store.row_values()} * sizeof(HalfBits));
  const auto fragment = unpack_fragment({values, store.row_values()}, bytes);
  const bool fits = fragment && store.dim() == fragment->dim && fragment->bits == store.bits() &&
                    fragment->tile_tokens == config_.tile_tokens && fragment->row < config_.tile_tokens &&
                    fragment->fragments <= config_.tile_tokens && fragment->records_bytes == store.records_bytes();
  if (!fits) return write_row(id, stream, cell, values);
  place_fragment(stream, cell, *fragment);
  if (const Status status = write_row(id, stream, cell, values); status != Status::kOk) return status;
  const auto complete = restore_.add(id, stream, cell, *fragment);
  return complete ? finish_record(*complete) : Status::kOk;
}

Status KvCache::finish_record(const PartialRecord& partial) {
  RowStore& store = stores_[partial.store];
  const Stream& stream = map_.stream(partial.stream);
  const std::size_t stride = record_bytes(store.shape());
  for (std::size_t at = 0; at < partial.records.size(); at += stride) {
    if (validate_record(store.shape(), {partial.records.data() + at, stride}) != Status::kOk) return Status::kOk;
  }
  const Place first = stream.places[partial.cells[0]];
  bool aligned = static_cast<bool>(first);
  for (std::size_t at = 0; at < partial.cells.size() && aligned; ++at) {
    aligned = stream.places[partial.cells[at]] == Place{first.ref_plus_one, partial.rows[at]};
  }
  std::uint8_t* record = store.allocate_record();
  if (record == nullptr) return Status::kOutOfMemory;
  std::memcpy(record, partial.records.data(), partial.records.size());
  const TileId tile = aligned ? stream.refs[first.ref()].tile : 0;
  if (aligned && map_.tile(tile).refs == 1 && !store.sealed(tile)) {
    store.adopt_record(tile, record);
    bool all_settled = true;
    for (StoreId id = 0; id < stores_.size(); ++id) all_settled &= retired_[id] || stores_[id].settled(tile);
    if (all_settled) map_.tile(tile).state = TileState::kSealed;
    return Status::kOk;
  }
  // The rows landed apart: they become the values the record stands for.
  std::vector<HalfBits> values(std::size_t{config_.tile_tokens} * store.row_values());
  store.decode_records(record, values.data());
  store.discard_record(record);
  for (std::size_t at = 0; at < partial.cells.size(); ++at) {
    const HalfBits* row = values.data() + std::size_t{partial.rows[at]} * store.row_values();
    const Status status = write_row(partial.store, partial.stream, partial.cells[at], row);
    if (status != Status::kOk) return status;
  }
  return Status::kOk;
}

}  // namespace kvarn
