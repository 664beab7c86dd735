// From an open session into caches.
#include "base/checksum.hpp"
#include "session/session.hpp"

namespace kvarn {
namespace {

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
  SequenceLayout layout;
  layout.tile_tokens = part.config.tile_tokens;
  layout.version = part.config.version;
  layout.windowed = part.windowed;
  layout.window_hits = part.window_hits;
  layout.stores = part.stores;
  for (const SessionTile& tile : tiles) layout.tiles.push_back(tile.tile);
  return layout;
}

void add_item(const SessionTile::Item& item, bool leave_records, TileContent& content) {
  switch (static_cast<ItemKind>(item.entry.kind)) {
    case ItemKind::kRecords:
      content.kind = ContentKind::kRecords;
      content.bytes = item.bytes;
      content.bits = item.entry.bits;
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
  if (status == Status::kInvalidArgument) return SessionStatus::kOtherShape;
  return status == Status::kOutOfMemory ? SessionStatus::kOutOfMemory : damage_of(kind);
}

SessionStatus of_place(Status status) {
  switch (status) {
    case Status::kOk:
      return SessionStatus::kOk;
    case Status::kOutOfMemory:
      return SessionStatus::kOutOfMemory;
    case Status::kFull:
      return SessionStatus::kTooFewCells;
    case Status::kOutOfOrder:
      return SessionStatus::kInvalidArgument;
    default:
      return SessionStatus::kOtherShape;
  }
}

}  // namespace

SessionStatus Session::fill(const SessionTile& tile, const SequenceLayout& layout, SnapshotTarget& cache,
                            Records records) const {
  const auto number = static_cast<std::uint32_t>(tile.tile.id);
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
        content.history = cache.tile_history(layout, item.entry.reference, store);
      }
    }
    const Status status = cache.fill_tile(layout, number, store, content);
    if (status != Status::kOk) return of_cache(status, last);
  }
  return SessionStatus::kOk;
}

SessionStatus Session::load(std::uint32_t part, SnapshotTarget& cache, std::uint32_t stream,
                            std::span<const std::uint32_t> cells, Records records) const {
  const auto tiles = this->tiles(part);
  if (!tiles.ok()) return tiles.status();
  const SessionPartIndex& content = index_.parts[part];
  if (cells.size() != content.tokens) return SessionStatus::kTooFewCells;
  SequenceLayout layout = layout_of(content, tiles.value());
  if (!valid_layout(layout) || !references_resolve(tiles.value())) return SessionStatus::kDamagedTile;
  const SessionStatus placed = of_place(cache.place_sequence(stream, layout, cells));
  if (placed != SessionStatus::kOk) return placed;
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
  if (status == SessionStatus::kOk) status = of_place(cache.finish_sequence(layout));
  if (status != SessionStatus::kOk) cache.abandon_sequence(layout, cells);
  return status;
}

}  // namespace kvarn
