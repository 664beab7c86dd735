// The part of KvCache that speaks with an engine's own save and restore: rows out as values or fragments, and back in.
#include <algorithm>
#include <array>
#include <cstring>

#include "cache/kv_cache.hpp"
#include "format/record_check.hpp"

namespace kvarn {

std::vector<std::uint8_t> KvCache::travelling_bytes(const RowStore& store, const TileRef& ref, std::uint32_t first_cell,
                                                    std::uint32_t count) const {
  const auto travels = [&](std::uint32_t cell) {
    return cell == TileView::kNoCell || (cell >= first_cell && cell - first_cell < count);
  };
  const auto fits = [&](std::size_t bytes) {
    return fragment_fits(static_cast<std::uint32_t>(bytes), ref.live, store.row_values());
  };
  std::vector<std::uint8_t> bytes;
  if (!store.sealed(ref.tile) || !fits(store.records_bytes())) return bytes;
  if (!std::all_of(ref.cells.begin(), ref.cells.end(), travels)) return bytes;
  const std::uint8_t* records = store.view(ref.tile).records;
  bytes.assign(records, records + store.records_bytes());
  const QueryHistory* history = store.history(ref.tile).get();
  if (history == nullptr || !fits(bytes.size() + history->bytes().size())) return bytes;
  bytes.insert(bytes.end(), history->bytes().begin(), history->bytes().end());
  return bytes;
}

namespace {

// The tile whose rows are being read, with what its fragments have in common.
struct TravellingTile {
  std::uint32_t ref = 0;
  std::vector<std::uint8_t> bytes;  // empty: its rows go as values
  std::uint64_t hash = 0;
  std::array<std::uint16_t, 256> index_of_row{};

  TravellingTile(std::uint32_t listed, const TileRef& tile, std::vector<std::uint8_t> all)
      : ref(listed), bytes(std::move(all)), hash(hash_bytes(bytes, 0)) {
    std::uint16_t index = 0;
    for (std::uint32_t at = 0; at < tile.cells.size(); ++at) {
      index_of_row[at] = index;
      if (tile.cells[at] != TileView::kNoCell) ++index;
    }
  }

  StateFragment fragment(std::uint32_t row, const TileRef& tile, const RowStore& store) const {
    const auto size = static_cast<std::uint32_t>(bytes.size());
    const std::uint32_t share = share_bytes(size, tile.live);
    const std::uint32_t first = std::min(size, share * index_of_row[row]);
    return {static_cast<std::uint16_t>(row),
            index_of_row[row],
            static_cast<std::uint16_t>(tile.live),
            static_cast<std::uint16_t>(store.dim()),
            static_cast<std::uint16_t>(tile.cells.size()),
            static_cast<std::uint16_t>(store.bits()),
            size,
            hash,
            {bytes.data() + first, std::min(share, size - first)}};
  }
};

}  // namespace

void KvCache::read_state_rows(StoreId id, std::uint32_t stream, std::uint32_t first_cell, std::uint32_t count,
                              HalfBits* rows) {
  RowStore& store = stores_[id];
  const Stream& source = map_.stream(stream);
  std::optional<TravellingTile> tile;
  for (std::uint32_t offset = 0; offset < count; ++offset) {
    const std::uint32_t cell = first_cell + offset;
    HalfBits* row = rows + std::size_t{offset} * store.row_values();
    const Place place = source.places[cell];
    if (!place) {
      read_row(id, stream, cell, row);
      continue;
    }
    const TileRef& ref = source.refs[place.ref()];
    if (!tile || tile->ref != place.ref()) {
      tile.emplace(place.ref(), ref, travelling_bytes(store, ref, first_cell, count));
      if (tile->bytes.empty()) store.forget_queries(ref.tile);
    }
    if (tile->bytes.empty()) {
      read_row(id, stream, cell, row);
    } else {
      pack_fragment(tile->fragment(place.row, ref, store), {row, store.row_values()});
    }
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
                    fragment->fragments <= config_.tile_tokens && store.restores(fragment->records_bytes);
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
  const std::span<const std::uint8_t> bytes = partial.records;
  const std::span<const std::uint8_t> records = bytes.first(store.records_bytes());
  for (std::size_t at = 0; at < records.size(); at += stride) {
    if (validate_record(store.shape(), records.subspan(at, stride)) != Status::kOk) return Status::kOk;
  }
  const Place first = stream.places[partial.cells[0]];
  bool aligned = static_cast<bool>(first);
  for (std::size_t at = 0; at < partial.cells.size() && aligned; ++at) {
    aligned = stream.places[partial.cells[at]] == Place{first.ref_plus_one, partial.rows[at]};
  }
  std::uint8_t* record = store.allocate_record();
  if (record == nullptr) return Status::kOutOfMemory;
  std::memcpy(record, records.data(), records.size());
  const TileId tile = aligned ? stream.refs[first.ref()].tile : 0;
  if (aligned && map_.tile(tile).refs == 1 && !store.sealed(tile)) {
    store.adopt_record(tile, record);
    store.restore_history(tile, bytes.subspan(records.size()));
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
