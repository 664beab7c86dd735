#include "cache/tile_filling.hpp"

#include <cstring>
#include <vector>

namespace kvarn {
namespace {

Status fill_records(RowStore& store, const SequenceTile& tile, const TileContent& content) {
  const std::uint32_t bits = content.bits == 0 ? store.bits() : content.bits;
  if (store.dim() == 0 || tile.state == TileState::kOpen) return Status::kCorrupt;
  if (!store.takes_width(bits)) return Status::kInvalidArgument;
  if (content.bytes.size() != store.records_bytes(bits)) return Status::kCorrupt;
  if (content.owner != nullptr && content.records_checksum) {
    store.adopt_foreign(tile.id, content.bytes.data(), bits, *content.records_checksum, content.owner);
    return Status::kOk;
  }
  if (!store.records_valid(content.bytes, bits)) return Status::kCorrupt;
  std::uint8_t* record = store.allocate_record(bits, RowStore::Claim::kWithinLimit);
  if (record == nullptr) return Status::kOutOfMemory;
  std::memcpy(record, content.bytes.data(), content.bytes.size());
  store.adopt_record(tile.id, record, bits);
  return Status::kOk;
}

Status fill_rows(RowStore& store, const SequenceTile& tile, const TileContent& content) {
  const std::size_t row_bytes = store.row_values() * sizeof(HalfBits);
  if (content.bytes.size() != tile.used() * row_bytes) return Status::kCorrupt;
  std::vector<HalfBits> row(store.row_values());
  for (std::uint32_t at = 0; at < tile.used(); ++at) {
    if (tile.tokens[at] == SequenceTile::kNone) continue;
    std::memcpy(row.data(), content.bytes.data() + at * row_bytes, row_bytes);
    if (const Status status = store.write_row(tile.id, at, row.data()); status != Status::kOk) return status;
  }
  if (content.kind == ContentKind::kFinalRows) store.keep_exact(tile.id);
  return Status::kOk;
}

}  // namespace

Status fill_store(RowStore& store, const SequenceTile& tile, const TileContent& content) {
  Status status = Status::kOk;
  if (content.kind == ContentKind::kRecords) {
    status = fill_records(store, tile, content);
  } else if (content.kind != ContentKind::kNothing) {
    status = fill_rows(store, tile, content);
  }
  if (status != Status::kOk || store.dim() == 0) return status;
  if (content.history != nullptr && store.keeps_queries()) store.set_history(tile.id, content.history);
  if (!content.history_bytes.empty() && !store.restore_history(tile.id, content.history_bytes)) return Status::kCorrupt;
  const bool has_samples = !content.samples.empty();
  return has_samples && !store.restore_samples(tile.id, content.samples) ? Status::kCorrupt : Status::kOk;
}

Status check_records(std::span<const UncheckedTile> unchecked, const Runner& runner) {
  if (unchecked.empty()) return Status::kOk;
  std::vector<std::uint8_t> intact(unchecked.size());
  parallel_for(runner, unchecked.size(), [&](std::size_t item, unsigned) {
    intact[item] = unchecked[item].store->foreign_is_intact(unchecked[item].tile) ? 1 : 0;
  });
  Status status = Status::kOk;
  for (std::size_t item = 0; item < unchecked.size(); ++item) {
    if (intact[item] == 0) status = Status::kCorrupt;
    const bool is_first = unchecked[item].store->is_unchecked(unchecked[item].tile);
    if (intact[item] != 0 && is_first) unchecked[item].store->mark_checked(unchecked[item].tile);
  }
  return status;
}

}  // namespace kvarn
