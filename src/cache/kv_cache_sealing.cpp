// The part of KvCache that seals tiles: which are due, what the queries of their sequence have looked like, and the
// encoding itself.
#include <algorithm>

#include "cache/kv_cache.hpp"

namespace kvarn {

void KvCache::keep_queries(StoreId k, const HeadCounts& counts, const BatchMask& mask,
                           const AttentionTensors& tensors) {
  const std::span<const std::uint32_t> cells = planner_.plan().cells;
  RowStore& keys = stores_[k];
  // What leaves an expected window is hardly ever sealed, and then no query reads it any more.
  const bool is_asked = config_.keeps_queries() && !map_.expects_window();
  if (!is_asked || cells.empty() || counts.heads != keys.query_shape().heads()) return;
  for (std::size_t at = 0; at < cells.size(); ++at) {
    const std::size_t slice = at / mask.queries;
    const Stream& stream = map_.stream(mask.first_stream + static_cast<std::uint32_t>(slice));
    const Place place = stream.places[cells[at]];
    if (!place) continue;
    const TileId tile = stream.refs[place.ref()].tile;
    if (!keys.query_shape().contribution(map_.tile(tile).start_rank).is_one) continue;
    const float* q = tensors.q + slice * tensors.q_slice + at % mask.queries * tensors.q_query;
    keys.keep_query(tile, place.row, q, tensors.q_head);
  }
}

std::shared_ptr<const QueryHistory> KvCache::history_up_to(const RowStore& keys, TileId tile) const {
  return kvarn::history_up_to(keys, {tile, map_.tile(tile).start_rank}, [&](const RankedTile& later) {
    const std::optional<TileId> id = map_.complete_before(later.id);
    return id ? std::optional(RankedTile{*id, map_.tile(*id).start_rank}) : std::nullopt;
  });
}

bool KvCache::is_due(const RowStore& store, TileId id) const {
  const Tile& tile = map_.tile(id);
  const std::uint32_t stagger = config_.seals_own_rows ? 0 : store.layer() % kLayerStagger;
  return !store.settled(id) && tile.observed_rank >= tile.start_rank + tile.used + config_.tail_tokens + stagger;
}

// In order of rank, so that a tile finds the history of the one before it and shares it.
std::vector<SealJob> KvCache::due_jobs(StoreId k, StoreId v) {
  std::vector<SealJob> jobs;
  for (const TileId id : map_.sealing()) {
    for (const StoreId which : {k, v}) {
      RowStore& store = stores_[which];
      if (store.baseline() != BaselineFormat::kNone || !is_due(store, id)) continue;
      std::uint8_t* record = store.allocate_record();
      if (record == nullptr) continue;  // no memory now: the tile stays exact, the next step tries again
      jobs.push_back({&store, id, record});
    }
  }
  std::stable_sort(jobs.begin(), jobs.end(), [&](const SealJob& left, const SealJob& right) {
    return map_.tile(left.tile).start_rank < map_.tile(right.tile).start_rank;
  });
  for (SealJob& job : jobs) {
    const bool asks = job.store->side() == Side::kKey && config_.keeps_queries();
    if (asks) job.store->set_history(job.tile, history_up_to(*job.store, job.tile));
  }
  return jobs;
}

void KvCache::round_due(StoreId k, StoreId v) {
  bool rounded = false;
  for (const StoreId which : {k, v}) {
    RowStore& store = stores_[which];
    if (store.baseline() == BaselineFormat::kNone) continue;
    std::byte* scratch = seal_scratch_.reserve(store.encode_scratch_bytes());
    for (const TileId id : map_.sealing()) {
      if (!is_due(store, id)) continue;
      store.round_rows(id, scratch);
      rounded = true;
    }
  }
  if (rounded) finish_sealing();
}

void KvCache::seal_due(StoreId k, StoreId v, const Runner& runner) {
  std::vector<SealJob> jobs = due_jobs(k, v);
  if (jobs.empty()) return;
  encode_tiles(jobs, runner, seal_scratch_);
  for (const SealJob& job : jobs) {
    if (job.encoded) {
      job.store->adopt_record(job.tile, job.record);
    } else {
      job.store->discard_record(job.record);
      job.store->keep_exact(job.tile);
    }
  }
  finish_sealing();
}

void KvCache::finish_sealing() {
  const std::size_t sealed = std::erase_if(map_.sealing(), [&](TileId id) {
    for (StoreId store = 0; store < stores_.size(); ++store) {
      if (!retired_[store] && !stores_[store].settled(id)) return false;
    }
    map_.tile(id).state = TileState::kSealed;
    return true;
  });
  // The next micro-batch may rewrite the same cells with the same mask: its rows need another place.
  if (sealed > 0 && config_.seals_own_rows) planner_.expire();
}

}  // namespace kvarn
