// What the tiles of sequences hold: rows written, tiles sealed, attention over them.
#include <algorithm>
#include <cstring>
#include <utility>

#include "attention/causal_part.hpp"
#include "cache/sequence_cache.hpp"
#include "cache/tile_filling.hpp"

namespace kvarn {
template <class Value>
void SequenceCache::write_rows(RowStore& store, const Part& part, std::size_t first_token,
                               const StridedRows<const Value>& rows) {
  const Sequence& sequence = sequences_[part.sequence];
  const std::uint32_t dim = store.dim();
  const std::uint32_t heads = store.row_values() / dim;
  std::vector<Value> gathered(rows.head_stride == dim || heads == 1 ? 0 : store.row_values());
  for (std::uint32_t token = 0; token < part.tokens; ++token) {
    const Value* row = rows.at(first_token + token, 0);
    for (std::uint32_t head = 0; !gathered.empty() && head < heads; ++head) {
      std::copy_n(rows.at(first_token + token, head), dim, gathered.data() + std::size_t{head} * dim);
    }
    const std::uint32_t rank = part.first + token;
    const TileId tile = sequence.tiles[rank / tile_tokens()];
    (void)store.write_row(tile, rank % tile_tokens(), gathered.empty() ? row : gathered.data());  // begin() made room
  }
}

template <class Value>
Status SequenceCache::append(std::uint32_t layer, const StridedRows<const Value>& k, const StridedRows<const Value>& v,
                             const Runner& runner) {
  if (layer >= layer_count()) return Status::kInvalidArgument;
  if (!in_step()) return Status::kOutOfOrder;
  std::size_t first_token = 0;
  for (const Part& part : step_) {
    write_rows(*layers_[layer].k, part, first_token, k);
    write_rows(*layers_[layer].v, part, first_token, v);
    first_token += part.tokens;
  }
  layers_[layer].appended = true;
  seal_due(layer, runner);
  return Status::kOk;
}

template Status SequenceCache::append(std::uint32_t, const StridedRows<const HalfBits>&,
                                      const StridedRows<const HalfBits>&, const Runner&);
template Status SequenceCache::append(std::uint32_t, const StridedRows<const float>&, const StridedRows<const float>&,
                                      const Runner&);

bool SequenceCache::is_due(std::uint32_t layer, std::uint32_t index, std::uint32_t rank) const {
  const std::uint64_t end = (std::uint64_t{index} + 1) * tile_tokens();
  return !config_.exact && rank >= end + config_.tail_tokens + layer % kLayerStagger;
}

void SequenceCache::find_history(const SealJob& job, const Sequence& sequence, std::uint32_t index) {
  const auto rank_of = [&](std::uint64_t at) { return at * tile_tokens(); };
  job.store->set_history(
      job.tile, history_up_to(*job.store, {job.tile, rank_of(index)}, [&](const RankedTile& later) {
        const std::uint64_t at = later.start_rank / tile_tokens();
        return at == 0 ? std::nullopt : std::optional(RankedTile{sequence.tiles[at - 1], rank_of(at - 1)});
      }));
}

// In order of rank, so that a tile finds the history of the one before it.
std::vector<SealJob> SequenceCache::due_jobs(std::uint32_t layer) {
  std::vector<SealJob> jobs;
  const auto is_listed = [&](const RowStore* store, TileId tile) {
    return std::any_of(jobs.begin(), jobs.end(),
                       [&](const SealJob& job) { return job.store == store && job.tile == tile; });
  };
  for (const Part& part : step_) {
    const Sequence& sequence = sequences_[part.sequence];
    for (std::uint32_t index = sequence.sealed_end[layer]; is_due(layer, index, part.first); ++index) {
      const TileId tile = sequence.tiles[index];
      for (RowStore* store : {layers_[layer].k, layers_[layer].v}) {
        if (store->settled(tile) || is_listed(store, tile)) continue;
        std::uint8_t* record = store->allocate_record();
        if (record == nullptr) continue;  // no memory now: the tile stays exact, the next step tries again
        jobs.push_back({store, tile, record});
        if (store->side() == Side::kKey && config_.keeps_queries()) find_history(jobs.back(), sequence, index);
      }
    }
  }
  return jobs;
}

void SequenceCache::mark_sealed(std::uint32_t layer) {
  for (const Part& part : step_) {
    Sequence& sequence = sequences_[part.sequence];
    std::uint32_t& end = sequence.sealed_end[layer];
    for (; is_due(layer, end, part.first); ++end) {
      const TileId tile = sequence.tiles[end];
      if (!layers_[layer].k->settled(tile) || !layers_[layer].v->settled(tile)) break;
      leave_rows(tile, layer);
    }
  }
}

void SequenceCache::seal_due(std::uint32_t layer, const Runner& runner) {
  std::vector<SealJob> jobs = due_jobs(layer);
  if (!jobs.empty()) encode_tiles(jobs, runner, seal_scratch_);
  for (const SealJob& job : jobs) {
    if (job.encoded) {
      job.store->add_record(job.tile, job.record, job.store->bits());
    } else {
      job.store->discard_record(job.record);
      job.store->keep_exact(job.tile);
    }
  }
  mark_sealed(layer);
}

void SequenceCache::keep_queries(RowStore& keys, const StridedRows<const float>& q) {
  if (!config_.keeps_queries()) return;
  std::size_t first_token = 0;
  for (const Part& part : step_) {
    for (std::uint32_t token = 0; token < part.tokens; ++token) {
      const std::uint32_t rank = part.first + token;
      const std::uint32_t index = rank / tile_tokens();
      if (!keys.query_shape().contribution(std::uint64_t{index} * tile_tokens()).is_one) continue;
      keys.keep_query(sequences_[part.sequence].tiles[index], rank % tile_tokens(), q.at(first_token + token, 0),
                      q.head_stride);
    }
    first_token += part.tokens;
  }
}

// The tiles of a part, from this one on, as this layer reads them.
std::vector<TileView> SequenceCache::list_views(std::uint32_t layer, const Part& part, std::uint32_t first) const {
  const Sequence& sequence = sequences_[part.sequence];
  std::vector<TileView> views;
  views.reserve(sequence.tiles.size() - first);
  for (std::uint32_t index = first; index < sequence.tiles.size(); ++index) {
    const TileId tile = sequence.tiles[index];
    const bool sealed = is_sealed(sequence, layer, index);
    const auto view = [&](const RowStore& store) { return sealed ? store.view(tile) : store.exact_view(tile); };
    TileView& added = views.emplace_back();
    added.k = view(*layers_[layer].k);
    added.v = view(*layers_[layer].v);
  }
  return views;
}

Status SequenceCache::check_foreign(std::uint32_t layer, std::uint32_t window_tokens, const Runner& runner) {
  std::vector<UncheckedTile> unchecked;
  for (RowStore* store : {layers_[layer].k, layers_[layer].v}) {
    if (!store->has_unchecked()) continue;
    for (const Part& part : step_) {
      const Sequence& sequence = sequences_[part.sequence];
      const std::uint32_t first = std::max(first_sealed_, oldest_seen(part.first, window_tokens) / tile_tokens());
      for (std::uint32_t index = first; index < sequence.sealed_end[layer]; ++index) {
        if (store->is_unchecked(sequence.tiles[index])) unchecked.push_back({store, sequence.tiles[index]});
      }
    }
  }
  return check_records(unchecked, runner);
}

Status SequenceCache::attend(std::uint32_t layer, const QueryParams& params, const StridedRows<const float>& q,
                             const StridedRows<float>& out, const Runner& runner) {
  if (layer >= layer_count()) return Status::kInvalidArgument;
  if (!in_step() || !layers_[layer].appended) return Status::kOutOfOrder;
  if (const Status status = check_foreign(layer, params.window_tokens, runner); status != Status::kOk) return status;
  keep_queries(*layers_[layer].k, q);
  std::vector<CausalPart> parts;
  std::vector<std::vector<TileView>> views;
  std::vector<AttentionJob> jobs;
  parts.reserve(step_.size());
  std::size_t first_token = 0;
  for (const Part& part : step_) {
    const CausalRange range{part.first, part.tokens, params.window_tokens, tile_tokens()};
    AttentionJob& job = jobs.emplace_back(
        parts.emplace_back(range).job(views.emplace_back(list_views(layer, part, range.first_tile()))));
    job.q = q.at(first_token, 0);
    job.q_query_stride = q.token_stride;
    job.q_head_stride = q.head_stride;
    job.out = out.at(first_token, 0);
    job.out_query_stride = out.token_stride;
    job.out_head_stride = out.head_stride;
    first_token += part.tokens;
  }
  const HeadCounts& heads = layers_[layer].heads;
  const AttentionShape shape{heads.heads,   heads.kv_heads, heads.dim_k,    heads.dim_v,
                             tile_tokens(), config_.k_bits, config_.v_bits, config_.version};
  const AttentionParams how{params.scale, params.soft_cap, 0.0f, params.sinks};
  kvarn::attend(shape, how, jobs, runner, attention_scratch_);
  return Status::kOk;
}

Status SequenceCache::read_tile(const RowStore& store, TileId tile, bool sealed, std::vector<HalfBits>& rows) const {
  rows.resize(std::size_t{tile_tokens()} * store.row_values());
  if (sealed && store.sealed(tile)) {
    if (store.is_unchecked(tile) && !store.foreign_is_intact(tile)) return Status::kCorrupt;
    store.read_rows(tile, tile_tokens(), rows.data());
    return Status::kOk;
  }
  for (std::uint32_t row = 0; row < tile_tokens(); ++row) {
    store.read_exact_row(tile, row, rows.data() + std::size_t{row} * store.row_values());
  }
  return Status::kOk;
}

Status SequenceCache::read_rows(SequenceId id, std::uint32_t layer, Side side, std::uint32_t first, std::uint32_t count,
                                const StridedRows<HalfBits>& rows) const {
  if (id >= sequences_.size() || layer >= layer_count()) return Status::kInvalidArgument;
  const Sequence& sequence = sequences_[id];
  if (first > sequence.length || count > sequence.length - first) return Status::kInvalidArgument;
  const RowStore& store = side == Side::kKey ? *layers_[layer].k : *layers_[layer].v;
  std::vector<HalfBits> tile_rows;
  for (std::uint32_t rank = first; rank < first + count; ++rank) {
    const std::uint32_t index = rank / tile_tokens();
    if (rank == first || rank % tile_tokens() == 0) {
      const bool sealed = is_sealed(sequence, layer, index);
      const Status status = read_tile(store, sequence.tiles[index], sealed, tile_rows);
      if (status != Status::kOk) return status;
    }
    const HalfBits* row = tile_rows.data() + std::size_t{rank % tile_tokens()} * store.row_values();
    for (std::uint32_t head = 0; head < store.row_values() / store.dim(); ++head) {
      std::copy_n(row + std::size_t{head} * store.dim(), store.dim(), rows.at(rank - first, head));
    }
  }
  return Status::kOk;
}

}  // namespace kvarn
