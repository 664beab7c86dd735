// Which tile belongs to which sequence: steps, truncation, forks, accounts. What a tile holds is written, sealed and
// read in sequence_attention.cpp.
#include "cache/sequence_cache.hpp"

#include <algorithm>

namespace kvarn {
namespace {

bool dim_fits(std::uint32_t dim) { return dim >= 16 && dim % 16 == 0 && dim <= kMaxRows; }

bool layer_fits(const HeadCounts& heads) {
  const bool grouped = heads.kv_heads > 0 && heads.heads > 0 && heads.heads % heads.kv_heads == 0;
  return grouped && heads.heads <= kMaxHeads && dim_fits(heads.dim_k) && dim_fits(heads.dim_v);
}

bool config_fits(const CacheConfig& config) {
  const bool has_baseline = config.k_baseline != BaselineFormat::kNone || config.v_baseline != BaselineFormat::kNone;
  return validate(config) == Status::kOk && !has_baseline && !config.seals_own_rows;
}

bool limits_fit(const SequenceLimits& limits) {
  return limits.sequences >= 1 && limits.sequences <= kMaxSequences && limits.tokens >= 1 &&
         limits.tokens <= kMaxSequenceTokens;
}

}  // namespace

Result<std::unique_ptr<SequenceCache>> SequenceCache::create(const CacheConfig& config,
                                                             std::span<const HeadCounts> layers,
                                                             const SequenceLimits& limits, const Allocator& allocator) {
  const bool layers_fit =
      !layers.empty() && layers.size() <= kMaxCacheLayers && std::all_of(layers.begin(), layers.end(), layer_fits);
  const bool allocator_fits = (allocator.allocate == nullptr) == (allocator.release == nullptr);
  if (!config_fits(config) || !layers_fit || !limits_fit(limits) || !allocator_fits) return Status::kInvalidArgument;
  return std::unique_ptr<SequenceCache>(new SequenceCache(config, layers, limits, allocator));
}

SequenceCache::SequenceCache(const CacheConfig& config, std::span<const HeadCounts> layers,
                             const SequenceLimits& limits, const Allocator& allocator)
    : config_(config),
      limits_(limits),
      allocator_(allocator),
      first_sealed_(config.sink_tokens / config.tile_tokens + (config.sink_tokens % config.tile_tokens != 0)),
      sequences_(limits.sequences) {
  limit_.set(limits.bytes);
  const auto add_store = [&](Side side, const HeadCounts& heads) {
    const std::uint32_t dim = side == Side::kKey ? heads.dim_k : heads.dim_v;
    const std::uint32_t bits = side == Side::kKey ? config.k_bits : config.v_bits;
    const std::size_t block_bytes = head_block_values(dim) * heads.kv_heads * sizeof(HalfBits);
    const std::size_t records_bytes = record_bytes(config.record_shape(side, dim)) * heads.kv_heads;
    RowStore& store = stores_.emplace_back(side, static_cast<std::uint32_t>(layers_.size()), dim * heads.kv_heads,
                                           config_, &pool(block_pools_, block_bytes));
    store.set_heads(dim, &pool(record_pools_, records_bytes));
    for (const std::uint32_t width : kLadder) {
      if (width != bits) store.add_width(width, &pool(record_pools_, store.records_bytes(width)));
    }
    if (side == Side::kKey) store.set_query_heads(heads.heads);
    return &store;
  };
  for (const HeadCounts& heads : layers) {
    RowStore* k = add_store(Side::kKey, heads);
    RowStore* v = add_store(Side::kValue, heads);
    layers_.push_back({heads, k, v});
  }
}

SlabPool& SequenceCache::pool(std::map<std::size_t, SlabPool>& pools, std::size_t slot_bytes) {
  return pools.try_emplace(slot_bytes, slot_bytes, &limit_, allocator_).first->second;
}

TileId SequenceCache::new_tile() {
  TileId tile;
  if (free_tiles_.empty()) {
    tile = static_cast<TileId>(tiles_.size());
    tiles_.emplace_back();
  } else {
    tile = free_tiles_.back();
    free_tiles_.pop_back();
  }
  tiles_[tile].sequences = 1;
  tiles_[tile].exact.assign(layers_.size(), 1);
  return tile;
}

void SequenceCache::free_tile(TileId tile) {
  for (RowStore& store : stores_) store.drop(tile);
  free_tiles_.push_back(tile);
}

void SequenceCache::leave_rows(TileId tile, std::uint32_t layer) {
  if (--tiles_[tile].exact[layer] != 0) return;
  layers_[layer].k->drop_exact_rows(tile);
  layers_[layer].v->drop_exact_rows(tile);
}

void SequenceCache::release(TileId tile, std::uint32_t index, const std::vector<std::uint32_t>& sealed_end) {
  if (--tiles_[tile].sequences == 0) return free_tile(tile);
  if (index < first_sealed_) return;
  for (std::uint32_t layer = 0; layer < layer_count(); ++layer) {
    if (index >= sealed_end[layer]) leave_rows(tile, layer);
  }
}

bool SequenceCache::writable(TileId tile) const {
  return tiles_[tile].sequences == 1 &&
         std::none_of(stores_.begin(), stores_.end(), [&](const RowStore& store) { return store.settled(tile); });
}

// The rows that the sequence has of a tile become exact rows of another one.
Status SequenceCache::copy_rows(const Sequence& sequence, std::uint32_t index, TileId to) {
  const TileId from = sequence.tiles[index];
  const std::uint32_t rows = sequence.length - index * tile_tokens();
  std::vector<HalfBits> values;
  for (std::uint32_t layer = 0; layer < layer_count(); ++layer) {
    for (RowStore* store : {layers_[layer].k, layers_[layer].v}) {
      if (!is_sealed(sequence, layer, index) || !store->sealed(from)) {
        store->share_rows(from, to, rows);
        continue;
      }
      if (const Status status = read_tile(*store, from, true, values); status != Status::kOk) return status;
      for (std::uint32_t row = 0; row < rows; ++row) {
        const HalfBits* from_row = values.data() + std::size_t{row} * store->row_values();
        if (const Status status = store->write_row(to, row, from_row); status != Status::kOk) return status;
      }
    }
  }
  return Status::kOk;
}

// Gives a part of the step tiles and memory for its rows.
Status SequenceCache::grow(Part& part) {
  Sequence& sequence = sequences_[part.sequence];
  const std::uint32_t last = part.first / tile_tokens();
  if (part.first % tile_tokens() != 0 && !writable(sequence.tiles[last])) {
    const TileId own = new_tile();
    if (const Status status = copy_rows(sequence, last, own); status != Status::kOk) {
      free_tile(own);
      return status;
    }
    part.replaces = true;
    part.replaced = sequence.tiles[last];
    part.sealed_end = sequence.sealed_end;
    sequence.tiles[last] = own;
    for (std::uint32_t& end : sequence.sealed_end) end = std::min(end, std::max(last, first_sealed_));
  }
  const std::uint32_t end = part.first + part.tokens;
  sequence.sealed_end.resize(layer_count(), first_sealed_);
  while (sequence.tiles.size() < tiles_of(end)) sequence.tiles.push_back(new_tile());
  for (std::uint32_t index = last; index < sequence.tiles.size(); ++index) {
    const std::uint32_t start = index * tile_tokens();
    const std::uint32_t first_row = std::max(part.first, start) - start;
    const std::uint32_t end_row = std::min(end - start, tile_tokens());
    for (RowStore& store : stores_) {
      const Status status = store.reserve_rows(sequence.tiles[index], first_row, end_row);
      if (status == Status::kOk) continue;
      shrink(part);
      return status;
    }
  }
  return Status::kOk;
}

// Undoes grow().
void SequenceCache::shrink(const Part& part) {
  Sequence& sequence = sequences_[part.sequence];
  const std::uint32_t last = part.first / tile_tokens();
  for (; sequence.tiles.size() > tiles_of(part.first); sequence.tiles.pop_back()) {
    release(sequence.tiles.back(), static_cast<std::uint32_t>(sequence.tiles.size() - 1), sequence.sealed_end);
  }
  if (part.replaces) {
    release(sequence.tiles[last], last, sequence.sealed_end);
    sequence.tiles[last] = part.replaced;
    for (std::uint32_t layer = 0; layer < layer_count(); ++layer) {
      sequence.sealed_end[layer] = std::max(sequence.sealed_end[layer], part.sealed_end[layer]);
    }
  } else if (part.first % tile_tokens() != 0) {
    for (RowStore& store : stores_) store.trim_rows(sequence.tiles[last], part.first % tile_tokens());
  }
}

Status SequenceCache::begin(std::span<const StepPart> parts) {
  if (in_step()) return Status::kOutOfOrder;
  if (parts.empty() || parts.size() > sequences_.size()) return Status::kInvalidArgument;
  std::vector<SequenceId> named;
  std::uint64_t tokens = 0;
  for (const StepPart& part : parts) {
    if (part.sequence >= sequences_.size() || part.tokens == 0) return Status::kInvalidArgument;
    named.push_back(part.sequence);
    tokens += part.tokens;
  }
  std::sort(named.begin(), named.end());
  if (std::adjacent_find(named.begin(), named.end()) != named.end()) return Status::kInvalidArgument;
  if (tokens > kMaxSequenceTokens) return Status::kFull;
  for (const StepPart& part : parts) {
    if (part.tokens > limits_.tokens - sequences_[part.sequence].length) return Status::kFull;
  }
  for (const StepPart& part : parts) {
    Part grown{part.sequence, sequences_[part.sequence].length, part.tokens, false, 0, {}};
    if (const Status status = grow(grown); status != Status::kOk) {
      cancel();
      return status;
    }
    step_.push_back(std::move(grown));
  }
  step_tokens_ = static_cast<std::uint32_t>(tokens);
  for (Layer& layer : layers_) layer.appended = false;
  return Status::kOk;
}

Status SequenceCache::commit() {
  const auto appended = [](const Layer& layer) { return layer.appended; };
  if (!in_step() || !std::all_of(layers_.begin(), layers_.end(), appended)) return Status::kOutOfOrder;
  for (const Part& part : step_) {
    sequences_[part.sequence].length += part.tokens;
    if (part.replaces) release(part.replaced, part.first / tile_tokens(), part.sealed_end);
  }
  step_.clear();
  step_tokens_ = 0;
  return Status::kOk;
}

void SequenceCache::cancel() {
  for (const Part& part : step_) shrink(part);
  step_.clear();
  step_tokens_ = 0;
}

Status SequenceCache::may_change(SequenceId sequence) const {
  if (sequence >= sequences_.size()) return Status::kInvalidArgument;
  return in_step() ? Status::kOutOfOrder : Status::kOk;
}

Status SequenceCache::truncate(SequenceId id, std::uint32_t tokens) {
  if (const Status status = may_change(id); status != Status::kOk) return status;
  Sequence& sequence = sequences_[id];
  if (tokens > sequence.length) return Status::kInvalidArgument;
  const std::uint32_t kept = tiles_of(tokens);
  for (std::uint32_t index = kept; index < sequence.tiles.size(); ++index) {
    release(sequence.tiles[index], index, sequence.sealed_end);
  }
  sequence.tiles.resize(kept);
  sequence.length = tokens;
  for (std::uint32_t& end : sequence.sealed_end) end = std::min(end, std::max(kept, first_sealed_));
  if (tokens % tile_tokens() != 0 && tiles_[sequence.tiles.back()].sequences == 1) {
    for (RowStore& store : stores_) store.trim_rows(sequence.tiles.back(), tokens % tile_tokens());
  }
  if (tokens == 0) sequence = Sequence{};
  return Status::kOk;
}

Status SequenceCache::fork(SequenceId from, SequenceId to) {
  for (const SequenceId id : {from, to}) {
    if (const Status status = may_change(id); status != Status::kOk) return status;
  }
  const Sequence& source = sequences_[from];
  if (from == to || sequences_[to].length != 0) return Status::kInvalidArgument;
  sequences_[to] = source;
  for (std::uint32_t index = 0; index < source.tiles.size(); ++index) {
    TileUse& use = tiles_[source.tiles[index]];
    ++use.sequences;
    for (std::uint32_t layer = 0; index >= first_sealed_ && layer < layer_count(); ++layer) {
      use.exact[layer] += index >= source.sealed_end[layer];
    }
  }
  return Status::kOk;
}

Status SequenceCache::clear() {
  if (in_step()) return Status::kOutOfOrder;
  for (SequenceId id = 0; id < sequences_.size(); ++id) (void)truncate(id, 0);
  return Status::kOk;
}

SequencesAccount SequenceCache::account() const {
  SequencesAccount account;
  const auto add = [&](const std::map<std::size_t, SlabPool>& pools, std::uint64_t& used) {
    for (const auto& [bytes, pool] : pools) {
      used += pool.used_bytes();
      account.slack_bytes += pool.taken_bytes() - pool.used_bytes();
    }
  };
  add(record_pools_, account.record_bytes);
  add(block_pools_, account.row_bytes);
  std::uint64_t token_bytes = 0;
  for (const Layer& layer : layers_) {
    token_bytes += (layer.k->row_values() + layer.v->row_values()) * sizeof(HalfBits);
    account.query_bytes += layer.k->query_bytes();
  }
  std::vector<std::uint32_t> rows(tiles_.size());  // the most that a sequence has of a tile
  account.list_bytes = tiles_.capacity() * (sizeof(TileUse) + layers_.size() * sizeof(std::uint32_t)) +
                       sequences_.capacity() * sizeof(Sequence);
  for (const Sequence& sequence : sequences_) {
    account.tokens += sequence.length;
    account.list_bytes += (sequence.tiles.capacity() + sequence.sealed_end.capacity()) * sizeof(std::uint32_t);
    for (std::uint32_t index = 0; index < tiles_of(sequence.length); ++index) {
      std::uint32_t& most = rows[sequence.tiles[index]];
      most = std::max(most, std::min(sequence.length - index * tile_tokens(), tile_tokens()));
    }
  }
  for (const std::uint32_t held : rows) account.stored_tokens += held;
  for (const RowStore& store : stores_) account.mapped_bytes += store.foreign_bytes();
  account.scratch_bytes = attention_scratch_.bytes() + seal_scratch_.bytes();
  account.f16_bytes = token_bytes * account.tokens;
  return account;
}

SequenceAccount SequenceCache::account(SequenceId id) const {
  const Sequence& sequence = sequences_[id];
  SequenceAccount account;
  account.tokens = sequence.length;
  std::uint32_t sealed_end = sequence.tiles.empty() ? first_sealed_ : ~std::uint32_t{0};
  for (const std::uint32_t end : sequence.sealed_end) sealed_end = std::min(sealed_end, end);
  if (sealed_end > first_sealed_ && sealed_end != ~std::uint32_t{0}) {
    const std::uint64_t end = std::min<std::uint64_t>(std::uint64_t{sealed_end} * tile_tokens(), sequence.length);
    account.sealed_tokens = end - std::uint64_t{first_sealed_} * tile_tokens();
  }
  for (std::uint32_t layer = 0; layer < layer_count(); ++layer) {
    for (const RowStore* store : {layers_[layer].k, layers_[layer].v}) {
      account.f16_bytes += std::uint64_t{sequence.length} * store->row_values() * sizeof(HalfBits);
      const QueryHistory* counted = nullptr;  // tiles next to each other may share one
      for (std::uint32_t index = 0; index < sequence.tiles.size(); ++index) {
        const TileId tile = sequence.tiles[index];
        const bool is_alone = tiles_[tile].sequences == 1;
        const bool reads_record = is_sealed(sequence, layer, index) && store->sealed(tile);
        const RowStore::RowBytes rows = store->exact_bytes(tile);
        const bool has_records = store->sealed(tile) && !store->is_foreign(tile);
        const std::uint64_t records = has_records ? store->records_bytes(store->bits_of(tile)) : 0;
        const std::uint64_t queries = store->query_bytes_of(tile, counted);
        if (store->history(tile) != nullptr) counted = store->history(tile).get();
        account.held_bytes += (reads_record ? records : rows.all) + queries;
        if (is_alone) account.own_bytes += records + rows.own + queries;
        if (!is_alone && records != 0 && !reads_record && tiles_[tile].exact[layer] == 1) account.own_bytes += rows.own;
      }
    }
  }
  return account;
}

}  // namespace kvarn
