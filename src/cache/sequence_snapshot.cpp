// The part of SequenceCache that takes sequences apart and puts them together (snapshot.hpp). Stores are numbered layer
// by layer, K before V.
#include <algorithm>
#include <numeric>

#include "cache/sequence_cache.hpp"
#include "cache/tile_filling.hpp"

namespace kvarn {

SequenceTile SequenceCache::describe_tile(const Sequence& sequence, std::uint32_t index) const {
  SequenceTile tile;
  const std::uint32_t first = index * tile_tokens();
  tile.start_rank = first;
  tile.ranked = true;
  if (index > 0) tile.parent = index - 1, tile.parent_row = tile_tokens() - 1;
  tile.id = sequence.tiles[index];
  tile.travels_whole = sequence.length - first >= tile_tokens();
  tile.tokens.resize(std::min(sequence.length - first, tile_tokens()));
  std::iota(tile.tokens.begin(), tile.tokens.end(), first);
  if (!tile.travels_whole) return tile;
  std::uint32_t sealed = 0;
  for (std::uint32_t layer = 0; layer < layer_count(); ++layer) {
    if (!is_sealed(sequence, layer, index)) continue;
    ++sealed;
    // The first step at which this layer was due: so a tile that does not change stays the same bytes in a file.
    const std::uint64_t due = std::uint64_t{first} + tile_tokens() + config_.tail_tokens + layer % kLayerStagger;
    tile.observed_rank = std::max(tile.observed_rank, due);
  }
  if (sealed > 0) tile.state = sealed == layer_count() ? TileState::kSealed : TileState::kSealing;
  return tile;
}

Result<SequenceLayout> SequenceCache::sequence_layout(SequenceId id, std::span<const std::uint32_t> cells) {
  if (const Status status = may_change(id); status != Status::kOk) return status;
  const Sequence& sequence = sequences_[id];
  if (cells.size() != sequence.length) return Status::kInvalidArgument;
  SequenceLayout layout;
  layout.tile_tokens = tile_tokens();
  layout.version = config_.version;
  layout.stream = id;
  for (std::uint32_t number = 0; number < stores_.size(); ++number) {
    const RowStore& store = stores_[number];
    layout.stores.push_back(
        {store.layer(), store.side(), store.row_values(), store.dim(), store.query_heads(), store.bits()});
    layout.store_ids.push_back(number);
  }
  for (std::uint32_t index = 0; index < sequence.tiles.size(); ++index) {
    layout.tiles.push_back(describe_tile(sequence, index));
    const SequenceTile& tile = layout.tiles.back();
    for (const RowStore& store : stores_) {
      const bool is_read = !tile.travels_whole && store.is_unchecked(tile.id);
      if (is_read && !store.foreign_is_intact(tile.id)) return Status::kCorrupt;
    }
  }
  return layout;
}

TileContent SequenceCache::tile_content(const SequenceLayout& layout, std::uint32_t number, std::uint32_t store_number,
                                        ContentBuffer& buffer) const {
  const SequenceTile& tile = layout.tiles[number];
  const RowStore& store = stores_[layout.store_ids[store_number]];
  const bool sealed = is_sealed(sequences_[layout.stream], store.layer(), number);
  TileContent content;
  if (tile.travels_whole && sealed && store.sealed(tile.id)) {
    content.kind = ContentKind::kRecords;
    content.bits = store.bits_of(tile.id);
    content.bytes = {store.view(tile.id).records, store.records_bytes(content.bits)};
    content.records_checksum = store.foreign_checksum(tile.id);
    content.history = store.history(tile.id);
    return content;
  }
  // A tile that other sequences read from its record has rows and samples for this one, which will encode it again.
  const bool is_final = tile.travels_whole && store.settled(tile.id) && !store.sealed(tile.id);
  content.kind = is_final ? ContentKind::kFinalRows : ContentKind::kRows;
  if (is_final) content.history = store.history(tile.id);
  if (!sealed) buffer.samples = store.sample_bytes(tile.id);
  if (!sealed) content.samples = buffer.samples;
  (void)read_tile(store, tile.id, sealed, buffer.rows);  // sequence_layout() has looked at what is read here
  content.bytes = {reinterpret_cast<const std::uint8_t*>(buffer.rows.data()),
                   std::size_t{tile.used()} * store.row_values() * sizeof(HalfBits)};
  return content;
}

std::vector<std::uint32_t> SequenceCache::stores_for(const SequenceLayout& layout) const {
  std::vector<std::uint32_t> ids;
  std::vector<bool> is_taken(stores_.size());
  for (const StoreShape& shape : layout.stores) {
    const std::uint64_t id = std::uint64_t{shape.layer} * 2 + (shape.side == Side::kValue ? 1 : 0);
    if (id >= stores_.size() || is_taken[id]) return {};
    const RowStore& store = stores_[id];
    const bool fits = shape.row_values == store.row_values() && (shape.dim == 0 || shape.dim == store.dim()) &&
                      shape.bits == store.bits() &&
                      (shape.query_heads == 0 || shape.query_heads == store.query_heads());
    if (!fits) return {};
    is_taken[id] = true;
    ids.push_back(static_cast<std::uint32_t>(id));
  }
  return ids.size() == stores_.size() ? ids : std::vector<std::uint32_t>{};
}

bool SequenceCache::lies_in_order(const SequenceLayout& layout, std::size_t tokens) const {
  std::uint64_t rank = 0;
  for (const SequenceTile& tile : layout.tiles) {
    const bool follows = tile.ranked && tile.start_rank == rank && rank % tile_tokens() == 0;
    if (!follows || tile.used() > tile_tokens()) return false;
    for (const std::uint32_t token : tile.tokens) {
      if (token != rank++) return false;
    }
  }
  return rank == tokens;
}

Status SequenceCache::place_sequence(SequenceId id, SequenceLayout& layout, std::span<const std::uint32_t> cells) {
  if (const Status status = may_change(id); status != Status::kOk) return status;
  Sequence& sequence = sequences_[id];
  const bool fits = layout.tile_tokens == tile_tokens() && layout.version == config_.version;
  if (sequence.length != 0 || !fits || !valid_layout(layout)) {
    return Status::kInvalidArgument;
  }
  std::vector<std::uint32_t> ids = stores_for(layout);
  if (ids.empty() || !lies_in_order(layout, cells.size())) return Status::kInvalidArgument;
  if (cells.size() > limits_.tokens) return Status::kFull;
  layout.stream = id;
  layout.store_ids = std::move(ids);
  if (layout.tiles.empty()) return Status::kOk;
  sequence.length = static_cast<std::uint32_t>(cells.size());
  sequence.sealed_end.assign(layer_count(), first_sealed_);
  for (SequenceTile& tile : layout.tiles) {
    tile.id = new_tile();
    sequence.tiles.push_back(tile.id);
  }
  return Status::kOk;
}

Status SequenceCache::fill_tile(const SequenceLayout& layout, std::uint32_t tile, std::uint32_t store,
                                const TileContent& content) {
  return fill_store(stores_[layout.store_ids[store]], layout.tiles[tile], content);
}

std::shared_ptr<const QueryHistory> SequenceCache::tile_history(const SequenceLayout& layout, std::uint32_t tile,
                                                                std::uint32_t store) const {
  return stores_[layout.store_ids[store]].history(layout.tiles[tile].id);
}

Status SequenceCache::finish_sequence(const SequenceLayout& layout) {
  Sequence& sequence = sequences_[layout.stream];
  const auto count = static_cast<std::uint32_t>(sequence.tiles.size());
  for (std::uint32_t layer = 0; count > 0 && layer < layer_count(); ++layer) {
    const Layer& of = layers_[layer];
    std::uint32_t end = std::min(first_sealed_, count);
    const auto is_settled = [&](TileId tile) { return of.k->settled(tile) && of.v->settled(tile); };
    while (end < count && layout.tiles[end].used() == tile_tokens() && is_settled(sequence.tiles[end])) ++end;
    for (std::uint32_t index = 0; index < count; ++index) {
      const bool has_record = of.k->sealed(sequence.tiles[index]) || of.v->sealed(sequence.tiles[index]);
      if (has_record && (index < first_sealed_ || index >= end)) return Status::kInvalidArgument;
    }
    for (std::uint32_t index = first_sealed_; index < end; ++index) leave_rows(sequence.tiles[index], layer);
    sequence.sealed_end[layer] = std::max(first_sealed_, end);
  }
  return Status::kOk;
}

void SequenceCache::abandon_sequence(const SequenceLayout& layout, std::span<const std::uint32_t>) {
  (void)drop(layout.stream);
}

}  // namespace kvarn
