#include "session/session_tile.hpp"

#include <tuple>

#include "base/checksum.hpp"

namespace kvarn {
namespace {

bool take_rows(std::span<const std::uint8_t>& bytes, std::uint32_t tile_tokens, const TilePlace& place,
               SessionTile& out) {
  const std::uint32_t live_bytes = live_bytes_of(tile_tokens);
  const std::uint32_t used = out.tile.used();
  if (bytes.size() < live_bytes + std::size_t{used} * 8) return false;
  const std::span<const std::uint8_t> live = bytes.first(live_bytes);
  const std::span<const std::uint8_t> ids = bytes.subspan(live_bytes, std::size_t{used} * 4);
  const std::span<const std::uint8_t> positions =
      bytes.subspan(live_bytes + std::size_t{used} * 4, std::size_t{used} * 4);
  bytes = bytes.subspan(live_bytes + std::size_t{used} * 8);
  for (std::uint32_t row = 0; row < live_bytes * 8; ++row) {
    if ((live[row / 8] >> (row % 8) & 1) == 0) continue;
    if (row >= used) return false;
    SessionTokenId token;
    std::memcpy(&token.id, ids.data() + std::size_t{row} * 4, 4);
    std::memcpy(&token.position, positions.data() + std::size_t{row} * 4, 4);
    out.tile.tokens[row] = place.first_token + static_cast<std::uint32_t>(out.tokens.size());
    out.tokens.push_back(token);
  }
  return true;
}

// Records come last, so that everything that is read at once when a tile is loaded lies together.
std::tuple<bool, std::uint32_t, std::uint16_t> item_order(const TileItem& item) {
  return {item.kind == static_cast<std::uint16_t>(ItemKind::kRecords), item.store, item.kind};
}

bool valid_item(const TileItem& item, const TileItem* before, const SessionPartIndex& part, std::uint32_t number) {
  const bool ascends = before == nullptr || item_order(*before) < item_order(item);
  const bool is_known = item.kind >= static_cast<std::uint16_t>(ItemKind::kRecords) &&
                        item.kind <= static_cast<std::uint16_t>(ItemKind::kSamples);
  if (!ascends || !is_known || item.store >= part.stores.size()) return false;
  const auto kind = static_cast<ItemKind>(item.kind);
  const bool is_shared = kind == ItemKind::kSharedHistory;
  const bool refers = is_shared ? item.reference < number && item.bytes == 0 : item.reference == kNoNumber;
  if (kind != ItemKind::kRecords) return refers && item.bits == 0;
  return refers && (item.bits == part.stores[item.store].bits || (part.mixed_widths && valid_code_bits(item.bits)));
}

// Rows of a store come in one form, and so does its history.
bool is_in_two_forms(std::span<const SessionTile::Item> items, std::size_t stores) {
  enum : std::uint8_t { kHasRows = 1, kHasHistory = 2 };
  std::vector<std::uint8_t> seen(stores);
  for (const SessionTile::Item& item : items) {
    const auto kind = static_cast<ItemKind>(item.entry.kind);
    if (kind == ItemKind::kSamples) continue;
    const bool is_history = kind == ItemKind::kHistory || kind == ItemKind::kSharedHistory;
    std::uint8_t& of_store = seen[item.entry.store];
    const std::uint8_t form = is_history ? kHasHistory : kHasRows;
    if ((of_store & form) != 0) return true;
    of_store |= form;
  }
  return false;
}

bool take_items(std::span<const std::uint8_t> bytes, std::span<const std::uint8_t> extent, std::uint64_t head_bytes,
                const SessionPartIndex& part, SessionTile& out) {
  std::uint64_t at = session_aligned(head_bytes);
  const std::uint32_t number = static_cast<std::uint32_t>(out.tile.id);
  for (SessionTile::Item& item : out.items) {
    const TileItem* before = &item == out.items.data() ? nullptr : &(&item - 1)->entry;
    if (!take_pod(bytes, item.entry) || !valid_item(item.entry, before, part, number)) return false;
    if (at > extent.size() || item.entry.bytes > extent.size() - at) return false;
    item.bytes = extent.subspan(at, item.entry.bytes);
    at += session_aligned(item.entry.bytes);
  }
  return at == extent.size() && !is_in_two_forms(out.items, part.stores.size());
}

}  // namespace

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

SessionResult<SessionTile> read_tile(std::span<const std::uint8_t> file, const SessionPartIndex& part,
                                     const TilePlace& place) {
  const TileEntry& entry = part.tiles[place.number];
  const std::span<const std::uint8_t> extent = file.subspan(entry.offset, entry.bytes);
  std::span<const std::uint8_t> bytes = extent;
  TileHead head;
  if (!take_pod(bytes, head) || head.magic != kTileMagic) return SessionStatus::kDamagedTile;
  if (head.head_bytes > extent.size() || checksum(extent.first(head.head_bytes)) != entry.checksum) {
    return SessionStatus::kDamagedTile;
  }
  const std::uint32_t tile_tokens = part.config.tile_tokens;
  if (head.part != place.part || head.number != place.number || head.used == 0 || head.used > tile_tokens ||
      head.state > 2 || head.ranked > 1) {
    return SessionStatus::kDamagedTile;
  }
  const std::uint64_t needed = sizeof(head) + live_bytes_of(tile_tokens) + std::uint64_t{head.used} * 8 +
                               std::uint64_t{head.items} * sizeof(TileItem);
  if (needed != head.head_bytes) return SessionStatus::kDamagedTile;
  SessionTile out;
  out.tile.start_rank = head.start_rank;
  out.tile.observed_rank = head.observed_rank;
  out.tile.parent = head.parent;
  out.tile.parent_row = head.parent_row;
  out.tile.counted_row = head.counted_row;
  out.tile.counted = head.counted;
  out.tile.state = static_cast<TileState>(head.state);
  out.tile.ranked = head.ranked != 0;
  out.tile.tokens.assign(head.used, SequenceTile::kNone);
  out.tile.id = place.number;  // until a cache gives it one
  out.items.resize(head.items);
  if (!take_rows(bytes, tile_tokens, place, out) || !take_items(bytes, extent, head.head_bytes, part, out)) {
    return SessionStatus::kDamagedTile;
  }
  return out;
}

std::vector<std::uint8_t> write_tile_head(const SequenceTile& tile, const TilePlace& place, std::uint32_t tile_tokens,
                                          std::span<const SessionTokenId> tokens, std::span<const TileItem> items) {
  const std::uint32_t live_bytes = live_bytes_of(tile_tokens);
  TileHead head{};
  head.magic = kTileMagic;
  head.head_bytes =
      static_cast<std::uint32_t>(sizeof(head) + live_bytes + std::size_t{tile.used()} * 8 + items.size_bytes());
  head.start_rank = tile.start_rank;
  head.observed_rank = tile.observed_rank;
  head.parent = tile.parent;
  head.parent_row = tile.parent_row;
  head.used = tile.used();
  head.state = static_cast<std::uint32_t>(tile.state);
  head.ranked = tile.ranked ? 1 : 0;
  head.counted_row = tile.counted_row;
  head.counted = tile.counted;
  head.items = static_cast<std::uint32_t>(items.size());
  head.part = place.part;
  head.number = place.number;
  std::vector<std::uint8_t> out;
  put_pod(out, head);
  out.resize(out.size() + live_bytes);
  const auto is_live = [&](std::uint32_t row) { return tile.tokens[row] != SequenceTile::kNone; };
  for (std::uint32_t row = 0; row < tile.used(); ++row) {
    if (is_live(row)) out[sizeof(head) + row / 8] |= static_cast<std::uint8_t>(1u << (row % 8));
  }
  for (std::uint32_t row = 0; row < tile.used(); ++row) put_pod(out, is_live(row) ? tokens[row].id : 0u);
  for (std::uint32_t row = 0; row < tile.used(); ++row) put_pod(out, is_live(row) ? tokens[row].position : 0);
  for (const TileItem& item : items) put_pod(out, item);
  return out;
}

}  // namespace kvarn
