#include "cache/kv_cache.hpp"

#include <algorithm>
#include <cstring>
#include <set>

namespace kvarn {

KvCache::KvCache(const CacheConfig& config, std::uint32_t streams, std::uint32_t cells, MemoryLimit* limit)
    : config_(config),
      limit_(limit),
      map_(streams, cells, config.tile_tokens),
      planner_(config_, map_),
      save_(map_, stores_),
      restore_(config.tile_tokens) {}

SlabPool& KvCache::pool(std::map<std::size_t, SlabPool>& pools, std::size_t slot_bytes) const {
  return pools.try_emplace(slot_bytes, slot_bytes, limit_, Allocator{}, SlabPool::Return::kTogether).first->second;
}

StoreId KvCache::add_store(Side side, std::uint32_t layer, std::uint32_t row_values) {
  const std::size_t block_bytes = std::size_t{kBlockTokens} * row_values * sizeof(HalfBits);
  stores_.emplace_back(side, layer, row_values, config_, &pool(block_pools_, block_bytes));
  retired_.push_back(false);
  return static_cast<StoreId>(stores_.size() - 1);
}

void KvCache::retire_store(StoreId store) {
  (void)end_transfers();
  retired_[store] = true;
  for (std::uint32_t stream = 0; stream < map_.stream_count(); ++stream) {
    for (const TileRef& ref : map_.stream(stream).refs) {
      if (ref.live != 0) stores_[store].drop(ref.tile);
    }
  }
  finish_sealing();
}

void KvCache::drop_released() {
  if (map_.released().empty()) return;
  for (const TileId tile : map_.released()) {
    for (RowStore& store : stores_) store.drop(tile);
  }
  map_.recycle();
}

Status KvCache::observe(const BatchMask& mask, std::span<const std::uint32_t> cells) {
  if (const Status status = end_transfers(); status != Status::kOk) return status;
  const std::uint64_t before = map_.version();
  planner_.observe(mask, cells);
  if (map_.version() == before) return Status::kOk;
  Status status = Status::kOk;
  for (const RowMove& move : planner_.moves()) {
    if (const Status moved = carry_row(move); moved != Status::kOk) status = moved;
  }
  drop_released();
  return status;
}

void KvCache::forget_batch() {
  const AttentionPlan& plan = planner_.plan();
  for (std::size_t at = 0; at < plan.cells.size(); ++at) {
    map_.remove(map_.stream(plan.first_stream + static_cast<std::uint32_t>(at / plan.queries)), plan.cells[at]);
  }
  planner_.forget();
  drop_released();
}

bool KvCache::drop_unseen() {
  const AttentionPlan& plan = planner_.plan();
  if (map_.stream_count() == 1 || plan.cells.empty()) return false;
  std::map<std::uint32_t, std::set<std::uint32_t>> seen;  // list entries, by stream
  for (const QueryRun& run : plan.runs) seen[plan.first_stream + run.slice].insert(run.refs.begin(), run.refs.end());
  bool dropped = false;
  for (const auto& [index, refs] : seen) {
    Stream& stream = map_.stream(index);
    for (std::uint32_t ref = 0; ref < stream.refs.size() && !stream.windowed; ++ref) {
      if (stream.refs[ref].live == 0 || refs.count(ref) != 0) continue;
      const std::vector<std::uint32_t> cells = stream.refs[ref].cells;
      for (const std::uint32_t cell : cells) {
        if (cell != TileView::kNoCell) map_.remove(stream, cell);
      }
      dropped = true;
    }
  }
  drop_released();
  return dropped;
}

Status KvCache::carry_row(const RowMove& move) {
  Status status = Status::kOk;
  std::vector<HalfBits> row;
  for (StoreId id = 0; id < stores_.size(); ++id) {
    if (retired_[id]) continue;
    RowStore& store = stores_[id];
    row.resize(store.row_values());
    store.read_row(move.from_tile, move.from_row, row.data());
    const Status written = store.write_row(move.to_tile, move.to_row, row.data(), RowStore::Claim::kBeyondLimit);
    if (written != Status::kOk) status = written;
  }
  return status;
}

Status KvCache::relocate(std::uint32_t stream, std::uint32_t cell) {
  Stream& target = map_.stream(stream);
  const Place old_place = target.places[cell];
  if (!old_place) {
    planner_.place_unseen(target, cell);
    return Status::kOk;
  }
  const TileId old_tile = target.refs[old_place.ref()].tile;
  const Place place = planner_.place_unseen(target, cell);
  const Status status = carry_row({old_tile, old_place.row, target.refs[place.ref()].tile, place.row});
  drop_released();
  return status;
}

// A tile that is about to be sealed with the rows of the micro-batch at hand still takes these, layer by layer.
bool KvCache::takes_row(StoreId store, std::uint32_t stream, std::uint32_t cell) const {
  const Stream& target = map_.stream(stream);
  const TileId id = target.refs[target.places[cell].ref()].tile;
  const Tile& tile = map_.tile(id);
  const bool awaits_row =
      config_.seals_own_rows && tile.state == TileState::kSealing && planner_.placed_now(stream, cell);
  return (tile.state == TileState::kOpen || awaits_row) && tile.refs == 1 && !stores_[store].settled(id);
}

Result<Place> KvCache::writable_place(StoreId store, std::uint32_t stream, std::uint32_t cell) {
  Stream& target = map_.stream(stream);
  if (!target.places[cell] || !takes_row(store, stream, cell)) {
    if (const Status status = relocate(stream, cell); status != Status::kOk) return status;
  }
  return target.places[cell];
}

template <class Value>
Status KvCache::write_values(StoreId store, std::uint32_t stream, std::uint32_t cell, const Value* values) {
  if (stream >= map_.stream_count() || cell >= map_.cells()) return Status::kOutOfRange;
  const Result<Place> place = writable_place(store, stream, cell);
  if (!place.ok()) return place.status();
  const TileId tile = map_.stream(stream).refs[place.value().ref()].tile;
  return stores_[store].write_row(tile, place.value().row, values);
}

template Status KvCache::write_values(StoreId, std::uint32_t, std::uint32_t, const HalfBits*);

Status KvCache::write_row(StoreId store, std::uint32_t stream, std::uint32_t cell, const float* values) {
  if (const Status status = end_transfers(); status != Status::kOk) return status;
  return write_values(store, stream, cell, values);
}

Status KvCache::write_row(StoreId store, std::uint32_t stream, std::uint32_t cell, const HalfBits* values) {
  if (const Status status = end_transfers(); status != Status::kOk) return status;
  return write_values(store, stream, cell, values);
}

bool KvCache::written(std::uint32_t stream, std::uint32_t cell) const {
  return static_cast<bool>(map_.stream(stream).places[cell]);
}

std::span<const std::uint8_t> KvCache::records_at(StoreId store, std::uint32_t stream, std::uint32_t cell) const {
  const Place place = map_.stream(stream).places[cell];
  const TileId tile = place ? map_.stream(stream).refs[place.ref()].tile : 0;
  if (!place || !stores_[store].sealed(tile)) return {};
  return {stores_[store].view(tile).records, stores_[store].records_bytes()};
}

std::shared_ptr<const QueryHistory> KvCache::history_at(StoreId store, std::uint32_t stream, std::uint32_t cell) const {
  const Place place = map_.stream(stream).places[cell];
  return place ? stores_[store].history(map_.stream(stream).refs[place.ref()].tile) : nullptr;
}

void KvCache::read_row(StoreId store, std::uint32_t stream, std::uint32_t cell, HalfBits* values) {
  (void)settle_restore();
  const Stream& source = map_.stream(stream);
  const Place place = source.places[cell];
  if (!place) {
    std::memset(values, 0, stores_[store].row_values() * sizeof(HalfBits));
    return;
  }
  stores_[store].read_row(source.refs[place.ref()].tile, place.row, values);
}

Status KvCache::learn_heads(StoreId k, StoreId v, const HeadCounts& counts) {
  RowStore& keys = stores_[k];
  RowStore& values = stores_[v];
  const auto fits = [&](const RowStore& store, std::uint32_t dim) {
    const std::uint32_t granule = store.baseline() == BaselineFormat::kNone ? 16 : kBaselineBlock;
    return dim % granule == 0 && dim >= granule && dim <= kMaxRows &&
           std::uint64_t{dim} * counts.kv_heads == store.row_values() && (store.dim() == 0 || store.dim() == dim);
  };
  const bool grouped = counts.kv_heads > 0 && counts.heads > 0 && counts.heads % counts.kv_heads == 0;
  if (!grouped || !fits(keys, counts.dim_k) || !fits(values, counts.dim_v)) return Status::kInvalidArgument;
  for (RowStore* store : {&keys, &values}) {
    if (store->dim() != 0) continue;
    const std::uint32_t dim = store->side() == Side::kKey ? counts.dim_k : counts.dim_v;
    store->set_heads(dim,
                     &pool(record_pools_, record_bytes(config_.record_shape(store->side(), dim)) * counts.kv_heads));
    if (store->side() == Side::kKey) store->set_query_heads(counts.heads);
  }
  return Status::kOk;
}

Status KvCache::attend(StoreId k, StoreId v, const HeadCounts& counts, const AttentionParams& params,
                       const BatchMask& mask, const AttentionTensors& tensors, const Runner& runner) {
  if (const Status status = learn_heads(k, v, counts); status != Status::kOk) return status;
  if (const Status status = observe(mask, {}); status != Status::kOk) return status;
  keep_queries(k, counts, mask, tensors);
  round_due(k, v);
  seal_due(k, v, runner);
  if (const Status status = check_foreign(k, v, mask, runner); status != Status::kOk) return status;
  const AttentionPlan& plan = planner_.plan();
  std::vector<TileView> views;
  for (const QueryRun& run : plan.runs) {
    const Stream& stream = map_.stream(mask.first_stream + run.slice);
    for (const std::uint32_t ref : run.refs) {
      const TileRef& listed = stream.refs[ref];
      views.push_back({stores_[k].view(listed.tile), stores_[v].view(listed.tile), map_.tile(listed.tile).used,
                       listed.cells.data(), listed.live != map_.tile(listed.tile).used});
    }
  }
  std::vector<AttentionJob> jobs;
  std::size_t first_view = 0;
  for (const QueryRun& run : plan.runs) {
    AttentionJob job;
    job.tiles = {views.data() + first_view, run.refs.size()};
    job.queries = run.queries;
    job.visibility = run.visibility.data();
    job.mask = mask.row(run.slice, run.first_query);
    job.mask_stride = mask.query_stride;
    job.mask_columns = mask.columns;
    job.q = tensors.q + run.slice * tensors.q_slice + run.first_query * tensors.q_query;
    job.q_query_stride = tensors.q_query;
    job.q_head_stride = tensors.q_head;
    job.out = tensors.out + run.slice * tensors.out_slice + run.first_query * tensors.out_query;
    job.out_query_stride = tensors.out_query;
    job.out_head_stride = tensors.out_head;
    jobs.push_back(job);
    first_view += run.refs.size();
  }
  const AttentionShape shape{counts.heads,        counts.kv_heads,   counts.dim_k,      counts.dim_v,
                             config_.tile_tokens, stores_[k].bits(), stores_[v].bits(), config_.version};
  kvarn::attend(shape, params, jobs, runner, attention_scratch_);
  return Status::kOk;
}

void KvCache::copy_stream(std::uint32_t from, std::uint32_t to) {
  if (from == to) return;
  (void)end_transfers();
  const Stream& source = map_.stream(from);
  const Stream& target = map_.stream(to);
  if (target.clone_source == from && target.clone_version == target.version &&
      target.source_version == source.version) {
    return;
  }
  map_.clone(from, to);
  planner_.expire();  // rows of `from` that are rewritten need another place, though its map is the same
  drop_released();
}

Status KvCache::make_private(std::uint32_t stream, std::uint32_t ref) {
  Stream& target = map_.stream(stream);
  const TileId old_tile = target.refs[ref].tile;
  if (map_.tile(old_tile).refs == 1) return Status::kOk;
  const TileId tile = map_.privatize(target, ref);
  Status status = Status::kOk;
  for (StoreId store = 0; store < stores_.size(); ++store) {
    if (retired_[store]) continue;
    if (const Status copied = stores_[store].copy_tile(old_tile, tile); copied != Status::kOk) status = copied;
  }
  return status;
}

Status KvCache::replace_tile_rows(StoreId store, TileId tile, std::uint32_t rows, const HalfBits* values) {
  RowStore& target = stores_[store];
  std::byte* scratch = target.dim() == 0 ? nullptr : seal_scratch_.reserve(target.encode_scratch_bytes());
  return target.replace_rows(tile, rows, values, scratch);
}

void KvCache::clear() {
  save_.drop();
  restore_.close();
  map_.clear();
  planner_.forget();
  drop_released();
}

CacheAccount KvCache::account() const {
  CacheAccount account;
  const auto add = [&](const std::map<std::size_t, SlabPool>& pools, std::uint64_t& used) {
    for (const auto& [bytes, pool] : pools) {
      used += pool.used_bytes();
      account.slack_bytes += pool.taken_bytes() - pool.used_bytes();
    }
  };
  add(record_pools_, account.record_bytes);
  add(block_pools_, account.open_row_bytes);
  account.map_bytes = map_.bytes() + planner_.plan().bytes();
  account.scratch_bytes = attention_scratch_.bytes() + seal_scratch_.bytes();
  account.cells_in_use = map_.live_cells();
  std::uint64_t row_bytes = 0;
  for (StoreId store = 0; store < stores_.size(); ++store) {
    if (retired_[store]) continue;
    row_bytes += stores_[store].row_values() * sizeof(HalfBits);
    account.moment_bytes += stores_[store].query_bytes();
    account.foreign_bytes += stores_[store].foreign_bytes();
  }
  account.f16_bytes = row_bytes * account.cells_in_use;
  for (std::uint32_t stream = 0; stream < map_.stream_count(); ++stream) {
    for (const TileRef& ref : map_.stream(stream).refs) {
      if (ref.live != 0 && map_.tile(ref.tile).state == TileState::kSealed) account.sealed_tokens += ref.live;
    }
  }
  return account;
}

}  // namespace kvarn
