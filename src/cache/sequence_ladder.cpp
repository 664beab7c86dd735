// Less memory for old tiles of chosen sequences: 16, 8, 4, 2 bits, step by step.
#include <algorithm>

#include "cache/sequence_cache.hpp"

namespace kvarn {

// Whether the tile's bytes are the cache's own, and every sequence that lists the tile at `index` is chosen and reads
// it as it will be read afterwards: from records in all layers, or, where nothing is sealed by itself, from rows that
// are full and behind the tail.
bool SequenceCache::may_lower(std::span<const SequenceId> chosen, std::uint32_t index, TileId tile) const {
  std::uint32_t sharers = 0;
  for (const SequenceId id : chosen) {
    const Sequence& sequence = sequences_[id];
    if (index >= sequence.tiles.size() || sequence.tiles[index] != tile) continue;
    ++sharers;
    const std::uint64_t end = (std::uint64_t{index} + 1) * tile_tokens();
    const bool is_old = sequence.length >= end + config_.tail_tokens;
    for (const std::uint32_t sealed_end : sequence.sealed_end) {
      const bool seals_now = config_.exact && is_old && sealed_end == index;
      if (index >= sealed_end && !seals_now) return false;
    }
  }
  const bool is_foreign =
      std::any_of(stores_.begin(), stores_.end(), [&](const RowStore& store) { return store.is_foreign(tile); });
  const auto& exact = tiles_[tile].exact;
  const bool has_readers = std::any_of(exact.begin(), exact.end(), [](std::uint32_t count) { return count != 0; });
  return !is_foreign && sharers == tiles_[tile].sequences && (config_.exact || !has_readers);
}

// Makes the rows of a sealed tile exact rows of another one, for its next record.
Status SequenceCache::decode_to(RowStore& store, TileId from, TileId to) {
  std::vector<HalfBits> rows(std::size_t{tile_tokens()} * store.row_values());
  store.read_rows(from, tile_tokens(), rows.data());
  for (std::uint32_t row = 0; row < tile_tokens(); ++row) {
    const HalfBits* values = rows.data() + std::size_t{row} * store.row_values();
    const Status status = store.write_row(to, row, values, RowStore::Claim::kBeyondLimit);
    if (status != Status::kOk) return status;
  }
  store.set_history(to, store.history(from));
  return Status::kOk;
}

// Encodes both sides of one layer of a tile to `bits`, where they have more. `spare` is an empty tile.
Status SequenceCache::lower_layer(std::uint32_t layer, TileId tile, TileId spare, std::uint32_t bits,
                                  const Runner& runner) {
  std::vector<SealJob> jobs;
  Status status = Status::kOk;
  for (RowStore* store : {layers_[layer].k, layers_[layer].v}) {
    const bool is_record = store->sealed(tile);
    if (is_record ? store->bits_of(tile) <= bits : store->settled(tile)) continue;
    if (is_record) status = decode_to(*store, tile, spare);
    std::uint8_t* record =
        status == Status::kOk ? store->allocate_record(bits, RowStore::Claim::kBeyondLimit) : nullptr;
    if (record == nullptr) {
      status = Status::kOutOfMemory;
      break;
    }
    jobs.push_back({store, is_record ? spare : tile, record, bits});
  }
  encode_tiles(jobs, runner, seal_scratch_);
  for (const SealJob& job : jobs) {
    if (job.encoded) {
      job.store->add_record(tile, job.record, bits);
    } else {
      job.store->discard_record(job.record, bits);
      if (job.tile == tile) job.store->keep_exact(tile);
    }
  }
  layers_[layer].k->drop(spare);
  layers_[layer].v->drop(spare);
  return status;
}

Status SequenceCache::lower_tile(std::span<const SequenceId> chosen, std::uint32_t index, std::uint32_t bits,
                                 const Runner& runner, TileId tile) {
  const TileId spare = new_tile();
  Status status = Status::kOk;
  for (std::uint32_t layer = 0; layer < layer_count() && status == Status::kOk; ++layer) {
    status = lower_layer(layer, tile, spare, bits, runner);
  }
  free_tile(spare);
  if (status != Status::kOk) return status;
  for (const SequenceId id : chosen) {
    Sequence& sequence = sequences_[id];
    if (index >= sequence.tiles.size() || sequence.tiles[index] != tile) continue;
    for (std::uint32_t layer = 0; layer < layer_count(); ++layer) {
      if (sequence.sealed_end[layer] != index) continue;
      ++sequence.sealed_end[layer];
      leave_rows(tile, layer);
    }
  }
  return Status::kOk;
}

Status SequenceCache::shrink(std::span<const SequenceId> chosen, const ShrinkGoal& goal, const Runner& runner) {
  std::vector<SequenceId> sorted(chosen.begin(), chosen.end());
  std::sort(sorted.begin(), sorted.end());
  const bool are_distinct = std::adjacent_find(sorted.begin(), sorted.end()) == sorted.end();
  if (!are_distinct || (!sorted.empty() && sorted.back() >= sequences_.size())) return Status::kInvalidArgument;
  if (!valid_code_bits(goal.lowest_bits)) return Status::kInvalidArgument;
  if (in_step()) return Status::kOutOfOrder;
  std::size_t tiles = 0;
  for (const SequenceId id : chosen) tiles = std::max(tiles, sequences_[id].tiles.size());
  for (const std::uint32_t bits : kLadder) {
    for (std::uint32_t index = first_sealed_; bits >= goal.lowest_bits && index < tiles; ++index) {
      for (const SequenceId id : chosen) {
        if (limit_.taken() <= goal.bytes) return Status::kOk;
        if (index >= sequences_[id].tiles.size()) continue;
        const TileId tile = sequences_[id].tiles[index];
        if (!may_lower(chosen, index, tile)) continue;
        if (const Status status = lower_tile(chosen, index, bits, runner, tile); status != Status::kOk) return status;
      }
    }
  }
  return limit_.taken() <= goal.bytes ? Status::kOk : Status::kFull;
}

}  // namespace kvarn
