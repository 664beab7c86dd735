// The part of KvCache that seals tiles: which are due, what the queries of their sequence have looked like, and the
// encoding itself.
#include <algorithm>

#include "cache/kv_cache.hpp"

namespace kvarn {

void KvCache::keep_queries(StoreId k, const HeadCounts& counts, const BatchMask& mask,
                           const AttentionTensors& tensors) {
  const std::span<const std::uint32_t> cells = planner_.plan().cells;
  RowStore& keys = stores_[k];
  if (!config_.keeps_queries() || cells.empty() || counts.heads != keys.query_shape().heads()) return;
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
  // A settled tile's history is fixed, though it may be none. Rows of one that is not may still change: it is summed up
  // anew for every tile that asks.
  const auto is_fixed = [&](TileId id) { return keys.settled(id) || keys.history(id) != nullptr; };
  std::vector<TileId> open;  // newest first
  std::optional<TileId> at = tile;
  for (; at && !is_fixed(*at); at = map_.complete_before(*at)) open.push_back(*at);
  std::shared_ptr<const QueryHistory> history = at ? keys.history(*at) : nullptr;
  for (auto id = open.rbegin(); id != open.rend(); ++id) {
    const Contribution contribution = keys.query_shape().contribution(map_.tile(*id).start_rank);
    if (contribution.is_one) history = keys.extend_history(std::move(history), *id, contribution.rest);
  }
  return history;
}

bool KvCache::is_due(const RowStore& store, TileId id) const {
  const Tile& tile = map_.tile(id);
  const std::uint32_t stagger = config_.seals_own_rows ? 0 : store.layer() % kLayerStagger;
  return !store.settled(id) && tile.observed_rank >= tile.start_rank + tile.used + config_.tail_tokens + stagger;
}

// In order of rank, so that a tile finds the history of the one before it and shares it.
std::vector<KvCache::SealJob> KvCache::due_jobs(StoreId k, StoreId v) {
  std::vector<SealJob> jobs;
  for (const TileId id : map_.sealing()) {
    for (const StoreId which : {k, v}) {
      RowStore& store = stores_[which];
      if (store.baseline() != BaselineFormat::kNone || !is_due(store, id)) continue;
      std::uint8_t* record = store.allocate_record();
      if (record == nullptr) continue;  // no memory now: the tile stays exact, the next step tries again
      jobs.push_back({&store, id, record, 0});
    }
  }
  std::stable_sort(jobs.begin(), jobs.end(), [&](const SealJob& left, const SealJob& right) {
    return map_.tile(left.tile).start_rank < map_.tile(right.tile).start_rank;
  });
  std::uint32_t items = 0;
  for (SealJob& job : jobs) {
    job.first_item = items;
    items += job.store->row_values() / job.store->dim();
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
    std::byte* scratch = seal_scratch_.reserve(codec_scratch_bytes(store.shape()));
    for (const TileId id : map_.sealing()) {
      if (!is_due(store, id)) continue;
      store.round_rows(id, scratch);
      rounded = true;
    }
  }
  if (rounded) finish_sealing();
}

void KvCache::settle(const SealJob& job, bool encoded) {
  if (encoded) {
    job.store->adopt_record(job.tile, job.record);
  } else {
    job.store->discard_record(job.record);
    job.store->keep_exact(job.tile);
  }
}

void KvCache::seal_due(StoreId k, StoreId v, const Runner& runner) {
  const std::vector<SealJob> jobs = due_jobs(k, v);
  if (jobs.empty()) return;
  const auto heads = [](const SealJob& job) { return job.store->row_values() / job.store->dim(); };
  const std::uint32_t items = jobs.back().first_item + heads(jobs.back());
  const std::size_t scratch_bytes = std::max(stores_[k].encode_scratch_bytes(), stores_[v].encode_scratch_bytes());
  std::byte* scratch = seal_scratch_.reserve(scratch_bytes * std::max(1u, runner.workers));
  std::vector<Status> results(items, Status::kOk);
  parallel_for(runner, items, [&](std::size_t item, unsigned worker) {
    const auto after = std::upper_bound(jobs.begin(), jobs.end(), item,
                                        [](std::size_t key, const SealJob& job) { return key < job.first_item; });
    const SealJob& job = *(after - 1);
    const auto head = static_cast<std::uint32_t>(item - job.first_item);
    results[item] = job.store->encode_head(job.tile, head, scratch + worker * scratch_bytes, job.record);
  });
  for (const SealJob& job : jobs) {
    const auto first = results.begin() + job.first_item;
    settle(job, std::all_of(first, first + heads(job), [](Status status) { return status == Status::kOk; }));
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
