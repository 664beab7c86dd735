// From an open session into caches, and the check of everything in it.
#include "base/checksum.hpp"
#include "session/session.hpp"

namespace kvarn {
namespace {

SessionStatus damage_of(ItemKind kind) {
  switch (kind) {
    case ItemKind::kRecords:
      return SessionStatus::kDamagedRecord;
    case ItemKind::kRows:
    case ItemKind::kFinalRows:
      return SessionStatus::kDamagedRows;
    case ItemKind::kHistory:
    case ItemKind::kSharedHistory:
      return SessionStatus::kDamagedHistory;
    case ItemKind::kSamples:
      return SessionStatus::kDamagedSamples;
  }
  return SessionStatus::kDamagedTile;
}

bool holds_history(const SessionTile& tile, std::uint32_t store) {
  for (const SessionTile::Item& item : tile.items) {
    if (item.entry.store == store && item.entry.kind == static_cast<std::uint16_t>(ItemKind::kHistory)) return true;
  }
  return false;
}

// What the items of a part say about each other.
bool references_resolve(const std::vector<SessionTile>& tiles) {
  for (const SessionTile& tile : tiles) {
    for (const SessionTile::Item& item : tile.items) {
      const bool is_shared = item.entry.kind == static_cast<std::uint16_t>(ItemKind::kSharedHistory);
      if (is_shared && !holds_history(tiles[item.entry.reference], item.entry.store)) return false;
    }
  }
  return true;
}

SequenceLayout layout_of(const SessionPartIndex& part, const std::vector<SessionTile>& tiles) {
  SequenceLayout layout{part.config.tile_tokens, part.windowed, part.window_hits, part.stores, {}, {}};
  for (const SessionTile& tile : tiles) layout.tiles.push_back(tile.tile);
  return layout;
}

void add_item(const SessionTile::Item& item, bool leave_records, TileContent& content) {
  switch (static_cast<ItemKind>(item.entry.kind)) {
    case ItemKind::kRecords:
      content.kind = ContentKind::kRecords;
      content.bytes = item.bytes;
      if (leave_records) content.records_checksum = item.entry.checksum;
      return;
    case ItemKind::kRows:
    case ItemKind::kFinalRows:
      content.kind =
          item.entry.kind == static_cast<std::uint16_t>(ItemKind::kRows) ? ContentKind::kRows : ContentKind::kFinalRows;
      content.bytes = item.bytes;
      return;
    case ItemKind::kHistory:
      content.history_bytes = item.bytes;
      return;
    case ItemKind::kSamples:
      content.samples = item.bytes;
      return;
    case ItemKind::kSharedHistory:
      return;
  }
}

SessionStatus of_cache(Status status, ItemKind kind) {
  if (status == Status::kOk) return SessionStatus::kOk;
  return status == Status::kOutOfMemory ? SessionStatus::kOutOfMemory : damage_of(kind);
}

}  // namespace

SessionStatus Session::fill(const SessionTile& tile, const SequenceLayout& layout, KvCache& cache,
                            Records records) const {
  const SequenceTile& placed = layout.tiles[tile.tile.id];
  for (std::size_t at = 0; at < tile.items.size();) {
    const std::uint32_t store = tile.items[at].entry.store;
    TileContent content;
    ItemKind last = ItemKind::kRecords;  // a content that no item fits is named by the last one that was added
    for (; at < tile.items.size() && tile.items[at].entry.store == store; ++at) {
      const SessionTile::Item& item = tile.items[at];
      last = static_cast<ItemKind>(item.entry.kind);
      const bool stays = last == ItemKind::kRecords && records == Records::kMapped;
      if (!stays && checksum(item.bytes) != item.entry.checksum) return damage_of(last);
      add_item(item, stays, content);
      if (stays) content.owner = bytes_;
      if (last == ItemKind::kSharedHistory) {
        content.history = cache.tile_history(layout.tiles[item.entry.reference], layout.store_ids[store]);
      }
    }
    const Status status = cache.fill_tile(placed, layout.store_ids[store], content);
    if (status != Status::kOk) return of_cache(status, last);
  }
  return SessionStatus::kOk;
}

SessionStatus Session::load(std::uint32_t part, KvCache& cache, std::uint32_t stream,
                            std::span<const std::uint32_t> cells, Records records) const {
  const auto tiles = this->tiles(part);
  if (!tiles.ok()) return tiles.status();
  const SessionPartIndex& content = index_.parts[part];
  if (cells.size() != content.tokens) return SessionStatus::kTooFewCells;
  SequenceLayout layout = layout_of(content, tiles.value());
  if (!valid_layout(layout) || !references_resolve(tiles.value())) return SessionStatus::kDamagedTile;
  const Status placed = cache.place_sequence(stream, layout, cells);
  if (placed != Status::kOk) {
    return placed == Status::kOutOfMemory ? SessionStatus::kOutOfMemory : SessionStatus::kOtherShape;
  }
  for (const SessionTile& tile : tiles.value()) {
    for (const SessionTile::Item& item : tile.items) {
      const bool is_record = item.entry.kind == static_cast<std::uint16_t>(ItemKind::kRecords);
      const auto offset = static_cast<std::uint64_t>(item.bytes.data() - bytes_->bytes().data());
      if (!is_record && records == Records::kMapped) bytes_->prefetch(offset, item.bytes.size());
    }
  }
  if (records == Records::kCopied) bytes_->expect(SessionBytes::Access::kStretches);
  SessionStatus status = SessionStatus::kOk;
  for (const SessionTile& tile : tiles.value()) {
    if (status == SessionStatus::kOk) status = fill(tile, layout, cache, records);
  }
  bytes_->expect(SessionBytes::Access::kStretches);  // whatever is read from now on is records
  if (status == SessionStatus::kOk) {
    cache.finish_sequence(stream, layout);
  } else {
    cache.drop_cells(stream, cells);
  }
  return status;
}

// A cache of its own takes every part, so that what is checked is what a load would use.
SessionStatus Session::verify() const {
  for (std::uint32_t part = 0; part < index_.parts.size(); ++part) {
    const SessionPartIndex& content = index_.parts[part];
    const auto tiles = this->tiles(part);
    if (!tiles.ok()) return tiles.status();
    for (const SessionTile& tile : tiles.value()) {
      for (const SessionTile::Item& item : tile.items) {
        if (checksum(item.bytes) != item.entry.checksum) return damage_of(static_cast<ItemKind>(item.entry.kind));
      }
    }
    const auto tokens = static_cast<std::uint32_t>(content.tokens);
    std::vector<std::uint32_t> cells(tokens);
    for (std::uint32_t cell = 0; cell < tokens; ++cell) cells[cell] = cell;
    KvCache cache(content.config, 1, std::max(tokens, 1u));
    for (const StoreShape& store : content.stores) cache.add_store(store.side, store.layer, store.row_values);
    const SessionStatus status = load(part, cache, 0, cells, Records::kMapped);
    // The cache has the layers of the session: what does not fit it does not fit itself.
    if (status != SessionStatus::kOk)
      return status == SessionStatus::kOtherShape ? SessionStatus::kDamagedTile : status;
    const auto layout = cache.sequence_layout(0, cells);
    if (!layout.ok()) return SessionStatus::kDamagedTile;
    for (const SequenceTile& tile : layout.value().tiles) {
      for (const std::uint32_t store : layout.value().store_ids) {
        if (!cache.records_intact(tile, store)) return SessionStatus::kDamagedRecord;
      }
    }
  }
  return SessionStatus::kOk;
}

}  // namespace kvarn
