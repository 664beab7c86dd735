#include "session/session_summary.hpp"

namespace kvarn {
namespace {

void add_item(const TileItem& item, StoreSummary& store) {
  switch (static_cast<ItemKind>(item.kind)) {
    case ItemKind::kRecords:
      ++store.sealed_tiles;
      store.record_bytes += item.bytes;
      return;
    case ItemKind::kRows:
    case ItemKind::kFinalRows:
      ++store.exact_tiles;
      store.row_bytes += item.bytes;
      return;
    case ItemKind::kHistory:
    case ItemKind::kSharedHistory:
    case ItemKind::kSamples:
      store.query_bytes += item.bytes;
      return;
  }
}

}  // namespace

std::uint64_t PartSummary::bytes() const {
  std::uint64_t total = description_bytes;
  for (const StoreSummary& store : stores) total += store.bytes();
  return total;
}

std::uint64_t PartSummary::values() const {
  std::uint64_t row_values = 0;
  for (const StoreSummary& store : stores) row_values += store.shape.row_values;
  return row_values * tokens;
}

double SessionSummary::bits_per_value() const {
  std::uint64_t values = 0;
  for (const PartSummary& part : parts) values += part.values();
  return values == 0 ? 0.0 : 8.0 * static_cast<double>(live_bytes) / static_cast<double>(values);
}

SessionResult<SessionSummary> summarize(const Session& session) {
  SessionSummary summary;
  summary.commit = session.index().commit;
  summary.file_bytes = session.file_bytes();
  summary.live_bytes = session.live_bytes();
  summary.index_bytes = session.index_bytes();
  summary.unfinished_bytes = session.file_bytes() - session.end();
  for (std::uint32_t number = 0; number < session.index().parts.size(); ++number) {
    const SessionPartIndex& index = session.index().parts[number];
    const auto tiles = session.tiles(number);
    if (!tiles.ok()) return tiles.status();
    PartSummary part{index.config, index.tokens, index.tiles.size(), 0, {}};
    for (const StoreShape& shape : index.stores) part.stores.push_back({.shape = shape});
    std::uint64_t extents = 0;
    for (const TileEntry& tile : index.tiles) extents += tile.bytes;
    for (const SessionTile& tile : tiles.value()) {
      for (const SessionTile::Item& item : tile.items) add_item(item.entry, part.stores[item.entry.store]);
    }
    part.description_bytes = extents - part.bytes();
    summary.parts.push_back(std::move(part));
  }
  return summary;
}

std::string preset_name(const CacheConfig& config) {
  if (config.exact) return "f16";
  std::string name = "k0v0";
  name[1] = static_cast<char>('0' + config.k_bits);
  name[3] = static_cast<char>('0' + config.v_bits);
  return name;
}

}  // namespace kvarn
