#include "cache/planner.hpp"

#include <algorithm>
#include <cstring>

namespace kvarn {
namespace {

constexpr HalfBits kHidden = 0xFC00;  // minus infinity
// Micro-batches in a row whose query sees no more than the one before it did, until a stream counts as a sliding
// window.
constexpr std::uint32_t kWindowHits = 2;
// How far behind the newest token, beyond the tail, a tile of a sliding window must be before it is sealed: an engine
// that recycles the cells of a window has done so by then; one that keeps all cells pays for the old ones in records.
constexpr std::uint64_t kPassedTokens = 2048;

std::uint64_t mix(std::uint64_t state, std::uint64_t word) {
  state = (state ^ word) * 0x9E3779B97F4A7C15ull;
  return state ^ (state >> 29);
}

// Four independent chains, so that the hash runs at memory speed.
std::uint64_t hash_halves(const HalfBits* values, std::size_t count, std::uint64_t seed) {
  std::uint64_t lanes[4] = {seed, seed + 1, seed + 2, seed + 3};
  std::size_t index = 0;
  for (; index + 16 <= count; index += 16) {
    std::uint64_t words[4];
    std::memcpy(words, values + index, sizeof(words));
    for (int lane = 0; lane < 4; ++lane) lanes[lane] = mix(lanes[lane], words[lane]);
  }
  std::uint64_t state = mix(mix(lanes[0], lanes[1]), mix(lanes[2], lanes[3]));
  for (; index < count; ++index) state = mix(state, values[index]);
  return state;
}

std::uint64_t hash_mask(const BatchMask& mask) {
  std::uint64_t state = mix(mix(mask.first_stream, mask.slices), mix(mask.queries, mask.columns));
  for (std::uint32_t slice = 0; slice < mask.slices; ++slice) {
    for (std::uint32_t query = 0; query < mask.queries; ++query) {
      state = hash_halves(mask.row(slice, query), mask.columns, state);
    }
  }
  return state;
}

std::uint32_t count_visible(const HalfBits* mask, std::uint32_t columns) {
  std::uint32_t count = 0;
  for (std::uint32_t cell = 0; cell < columns; ++cell) count += mask[cell] != kHidden;
  return count;
}

// What one query sees of one tile: how many rows, and whether all of them come with a zero mask value.
struct Seen {
  std::uint32_t rows = 0;
  bool plain = true;
};

bool contiguous(const TileRef& ref, std::uint32_t used, std::uint32_t columns) {
  if (ref.live != used || ref.cells[0] >= columns || columns - ref.cells[0] < used) return false;
  for (std::uint32_t row = 1; row < used; ++row) {
    if (ref.cells[row] != ref.cells[0] + row) return false;
  }
  return true;
}

Seen look_contiguous(const HalfBits* mask, std::uint32_t count) {
  HalfBits any = 0;
  std::uint32_t visible = 0;
  for (std::uint32_t row = 0; row < count; ++row) {
    any |= mask[row];
    visible += mask[row] != kHidden;
  }
  return {visible, any == 0};
}

Seen look(const HalfBits* mask, std::uint32_t columns, const TileRef& ref, std::uint32_t used) {
  Seen seen;
  for (std::uint32_t row = 0; row < used; ++row) {
    const std::uint32_t cell = ref.cells[row];
    const HalfBits value = cell < columns ? mask[cell] : kHidden;
    seen.rows += value != kHidden;
    seen.plain = seen.plain && value == 0;
  }
  return seen;
}

}  // namespace

std::size_t AttentionPlan::bytes() const {
  std::size_t total = runs.capacity() * sizeof(QueryRun) + cells.capacity() * sizeof(std::uint32_t);
  for (const QueryRun& run : runs) total += run.refs.capacity() * sizeof(std::uint32_t) + run.visibility.capacity();
  return total;
}

Planner::Planner(const CacheConfig& config, CellMap& map) : config_(config), map_(map) {
  for (std::uint32_t index = 0; index < map.stream_count(); ++index) marks_.emplace_back(map.cells());
}

bool Planner::waiting(std::uint32_t stream, std::uint32_t cell) const {
  return marks_[stream][cell] == epoch_ * 4 + kWaiting;
}

bool Planner::placed_now(std::uint32_t stream, std::uint32_t cell) const {
  return marks_[stream][cell] == epoch_ * 4 + kPlaced;
}

const AttentionPlan& Planner::observe(const BatchMask& mask, std::span<const std::uint32_t> cells) {
  const std::uint64_t hash = hash_mask(mask);
  const bool same = plan_.version != 0 && plan_.version == map_.version() && plan_.mask_hash == hash;
  if (same && all_placed_now(mask, cells)) return plan_;
  ++epoch_;
  moves_.clear();
  plan_.runs.clear();
  plan_.cells.assign(cells.begin(), cells.end());
  plan_.first_stream = mask.first_stream;
  plan_.queries = mask.queries;
  for (std::uint32_t slice = 0; slice < mask.slices; ++slice) {
    const auto slice_cells = cells.empty() ? cells : cells.subspan(std::size_t{slice} * mask.queries, mask.queries);
    const std::size_t first_run = plan_.runs.size();
    place_slice(mask, slice, slice_cells);
    for (std::size_t run = first_run; run < plan_.runs.size(); ++run) plan_run(mask, plan_.runs[run], slice_cells);
  }
  plan_.mask_hash = hash;
  plan_.version = map_.version();
  return plan_;
}

// An engine that reuses the cell of a token it drops may show the same mask for another token.
bool Planner::all_placed_now(const BatchMask& mask, std::span<const std::uint32_t> cells) const {
  for (std::size_t at = 0; at < cells.size(); ++at) {
    if (!placed_now(mask.first_stream + static_cast<std::uint32_t>(at / mask.queries), cells[at])) return false;
  }
  return true;
}

void Planner::place_slice(const BatchMask& mask, std::uint32_t slice, std::span<const std::uint32_t> cells) {
  const std::uint32_t index = mask.first_stream + slice;
  Stream& stream = map_.stream(index);
  if (cells.empty()) {
    plan_.runs.push_back({slice, 0, mask.queries, 0, {}, {}});
    return;
  }
  for (const std::uint32_t cell : cells) marks_[index][cell] = epoch_ * 4 + kWaiting;
  for (std::uint32_t query = 0; query < mask.queries; ++query) {
    const HalfBits* row = mask.row(slice, query);
    std::uint32_t before = query;  // the latest token of this micro-batch that this one sees
    while (before > 0 && row[cells[before - 1]] == kHidden) --before;
    const bool continues = before == query && query > 0;
    if (!continues)
      plan_.runs.push_back({slice, query, 0, before > 0 ? oldest_query(slice, before - 1) : query, {}, {}});
    ++plan_.runs.back().queries;
    const Parent parent =
        before > 0 ? Parent{true, stream.places[cells[before - 1]]} : newest_visible(index, row, mask.columns);
    place_token(index, cells[query], parent);
  }
}

std::uint32_t Planner::oldest_query(std::uint32_t slice, std::uint32_t query) const {
  const auto holds = [&](const QueryRun& run) {
    return run.slice == slice && query >= run.first_query && query - run.first_query < run.queries;
  };
  return std::find_if(plan_.runs.begin(), plan_.runs.end(), holds)->oldest_query;
}

bool Planner::stays(const Stream& stream, std::uint32_t cell, const Parent& parent) const {
  const Place at = stream.places[cell];
  if (!at) return false;
  const Tile& tile = map_.tile(stream.refs[at.ref()].tile);
  if (tile.state != TileState::kOpen || tile.refs != 1 || !tile.ranked) return false;
  if (at.row > 0) {
    return parent.exists && parent.place.ref_plus_one == at.ref_plus_one && parent.place.row + 1 == at.row;
  }
  if (!parent.exists) return tile.parent_serial == 0;
  const Tile& before = map_.tile(stream.refs[parent.place.ref()].tile);
  return tile.parent_serial == before.serial && tile.parent_row == parent.place.row;
}

void Planner::place_token(std::uint32_t index, std::uint32_t cell, const Parent& parent) {
  Stream& stream = map_.stream(index);
  marks_[index][cell] = epoch_ * 4 + kPlaced;
  if (stays(stream, cell, parent)) {
    map_.tile_at(stream, stream.places[cell]).newest_row = stream.places[cell].row;
    return;
  }
  map_.remove(stream, cell);
  if (parent.exists && make_room_after(index, parent.place)) {
    map_.put(stream, cell, Place{parent.place.ref_plus_one, parent.place.row + 1});
    return;
  }
  const Place place = map_.add_tile(stream);
  Tile& tile = map_.tile_at(stream, place);
  tile.ranked = true;
  if (parent.exists) {
    const TileId before = stream.refs[parent.place.ref()].tile;
    tile.start_rank = map_.tile(before).start_rank + parent.place.row + 1;
    map_.set_parent(stream.refs[place.ref()].tile, before, parent.place.row);
  }
  map_.put(stream, cell, place);
}

// They keep their rows, and so their rank: the tile they go to stays incomplete, and exact.
void Planner::move_rows(std::uint32_t index, std::uint32_t ref, std::uint32_t first_row) {
  Stream& stream = map_.stream(index);
  const TileId from = stream.refs[ref].tile;
  Place to;
  for (std::uint32_t row = first_row; row < map_.tile(from).used; ++row) {
    const std::uint32_t cell = stream.refs[ref].cells[row];
    if (cell == TileView::kNoCell) continue;
    map_.remove(stream, cell);
    if (waiting(index, cell)) continue;
    if (!to) {
      to = map_.add_tile(stream);
      Tile& tile = map_.tile_at(stream, to);
      const Tile& source = map_.tile(from);
      tile.start_rank = source.start_rank;
      tile.ranked = source.ranked;
      tile.used = source.used;
      tile.parent_serial = source.parent_serial;
      tile.parent_tile = source.parent_tile;
      tile.parent_row = source.parent_row;
    }
    map_.put(stream, cell, Place{to.ref_plus_one, row});
    moves_.push_back({from, row, stream.refs[to.ref()].tile, row});
  }
}

bool Planner::make_room_after(std::uint32_t index, Place parent) {
  Stream& stream = map_.stream(index);
  const std::uint32_t next = parent.row + 1;
  {
    Tile& tile = map_.tile_at(stream, parent);
    if (tile.state != TileState::kOpen || tile.refs != 1 || next >= map_.tile_tokens()) return false;
    if (next == tile.used) {
      ++tile.used;
      return true;
    }
    // Rows follow. They go only if the sequence was cut here: the first of them is gone or about to be rewritten, or
    // the parent is newer than they are, so that they followed another token in its place.
    const std::uint32_t follower = stream.refs[parent.ref()].cells[next];
    const bool is_cut = tile.newest_row == parent.row || follower == TileView::kNoCell || waiting(index, follower);
    if (!is_cut) return false;
  }
  move_rows(index, parent.ref(), next);
  map_.tile_at(stream, parent).used = next + 1;
  return true;
}

Place Planner::place_unseen(Stream& stream, std::uint32_t cell) {
  map_.remove(stream, cell);
  Place& at = stream.restore_at;
  bool fits = static_cast<bool>(at) && at.ref() < stream.refs.size() && stream.refs[at.ref()].live > 0;
  if (fits) {
    const Tile& tile = map_.tile_at(stream, at);
    fits = tile.serial == stream.restore_serial && tile.state == TileState::kOpen && tile.refs == 1 && !tile.ranked &&
           tile.used < map_.tile_tokens();
  }
  at = fits ? map_.take_next_row(stream, at.ref()) : map_.add_tile(stream);
  stream.restore_serial = map_.tile_at(stream, at).serial;
  map_.put(stream, cell, at);
  return at;
}

Planner::Parent Planner::newest_visible(std::uint32_t index, const HalfBits* mask, std::uint32_t columns) {
  rank_visible(index, mask, columns);
  const Stream& stream = map_.stream(index);
  Parent best;
  std::uint64_t best_rank = 0;
  for (std::uint32_t ref = 0; ref < stream.refs.size(); ++ref) {
    const TileRef& listed = stream.refs[ref];
    if (listed.live == 0) continue;
    const Tile& tile = map_.tile(listed.tile);
    for (std::uint32_t row = tile.used; tile.ranked && row-- > 0;) {
      const std::uint64_t rank = tile.start_rank + row;
      if (best.exists && rank <= best_rank) break;
      const std::uint32_t cell = listed.cells[row];
      if (cell >= columns || mask[cell] == kHidden || waiting(index, cell)) continue;
      best = {true, Place{ref + 1, row}};
      best_rank = rank;
      break;
    }
  }
  return best;
}

void Planner::rank_visible(std::uint32_t index, const HalfBits* mask, std::uint32_t columns) {
  Stream& stream = map_.stream(index);
  const auto unranked = [&](const TileRef& ref) { return ref.live != 0 && !map_.tile(ref.tile).ranked; };
  if (std::none_of(stream.refs.begin(), stream.refs.end(), unranked)) return;
  std::vector<TileId> seen;
  for (const TileRef& ref : stream.refs) {
    if (ref.live == 0) continue;
    const auto visible = [&](std::uint32_t cell) {
      return cell < columns && mask[cell] != kHidden && !waiting(index, cell);
    };
    if (std::any_of(ref.cells.begin(), ref.cells.end(), visible)) seen.push_back(ref.tile);
  }
  std::sort(seen.begin(), seen.end(),
            [&](TileId left, TileId right) { return map_.tile(left).serial < map_.tile(right).serial; });
  std::uint64_t next_rank = 0;
  TileId last = 0;  // the tile that ends at next_rank
  for (const TileId id : seen) {
    Tile& tile = map_.tile(id);
    if (!tile.ranked) {
      tile.start_rank = next_rank;
      // Only a complete tile is taken for what came before: an incomplete one tells nothing of what follows it.
      if (next_rank != 0 && map_.tile(last).used == map_.tile_tokens())
        map_.set_parent(id, last, map_.tile_tokens() - 1);
    }
    tile.ranked = true;
    if (tile.start_rank + tile.used < next_rank) continue;
    next_rank = tile.start_rank + tile.used;
    last = id;
  }
}

bool Planner::look_at_tiles(const BatchMask& mask, QueryRun& run, std::vector<std::uint32_t>& seen_rows) {
  const std::uint32_t index = mask.first_stream + run.slice;
  const Stream& stream = map_.stream(index);
  std::vector<std::uint32_t> order;
  for (std::uint32_t ref = 0; ref < stream.refs.size(); ++ref) {
    if (stream.refs[ref].live != 0) order.push_back(ref);
  }
  std::sort(order.begin(), order.end(), [&](std::uint32_t left, std::uint32_t right) {
    const Tile& a = map_.tile(stream.refs[left].tile);
    const Tile& b = map_.tile(stream.refs[right].tile);
    return a.start_rank != b.start_rank ? a.start_rank < b.start_rank : a.serial < b.serial;
  });
  run.refs.clear();
  seen_rows.clear();
  std::vector<Visibility> by_tile;  // [refs, queries]
  std::uint64_t mapped = 0;         // cells the last query sees and the map knows
  const std::uint32_t witness = config_.seals_own_rows ? run.queries - 1 : 0;
  for (const std::uint32_t ref : order) {
    const TileRef& listed = stream.refs[ref];
    const std::uint32_t used = map_.tile(listed.tile).used;
    const bool straight = contiguous(listed, used, mask.columns);
    const std::size_t at = by_tile.size();
    bool any = false;
    std::uint32_t witnessed_rows = 0;
    for (std::uint32_t query = 0; query < run.queries; ++query) {
      const HalfBits* row = mask.row(run.slice, run.first_query + query);
      const Seen seen = straight ? look_contiguous(row + listed.cells[0], used) : look(row, mask.columns, listed, used);
      const bool all = seen.rows == used && seen.plain;
      by_tile.push_back(seen.rows == 0 ? Visibility::kNone : all ? Visibility::kAll : Visibility::kSome);
      any = any || seen.rows != 0;
      if (query == witness) witnessed_rows = seen.rows;
      if (query + 1 == run.queries) mapped += seen.rows;
    }
    if (!any) {
      by_tile.resize(at);
      continue;
    }
    run.refs.push_back(ref);
    seen_rows.push_back(witnessed_rows);
  }
  const std::size_t tiles = run.refs.size();
  run.visibility.resize(tiles * run.queries);
  for (std::size_t tile = 0; tile < tiles; ++tile) {
    for (std::size_t query = 0; query < run.queries; ++query) {
      run.visibility[query * tiles + tile] = by_tile[tile * run.queries + query];
    }
  }
  return mapped == count_visible(mask.row(run.slice, run.first_query + run.queries - 1), mask.columns);
}

void Planner::map_missing(const BatchMask& mask, const QueryRun& run) {
  const std::uint32_t index = mask.first_stream + run.slice;
  Stream& stream = map_.stream(index);
  const HalfBits* row = mask.row(run.slice, run.first_query + run.queries - 1);
  for (std::uint32_t cell = 0; cell < mask.columns; ++cell) {
    if (row[cell] != kHidden && !stream.places[cell]) place_unseen(stream, cell);
  }
  rank_visible(index, row, mask.columns);
}

void Planner::plan_run(const BatchMask& mask, QueryRun& run, std::span<const std::uint32_t> cells) {
  const std::uint32_t index = mask.first_stream + run.slice;
  rank_visible(index, mask.row(run.slice, run.first_query + run.queries - 1), mask.columns);
  std::vector<std::uint32_t> seen_rows;
  if (!look_at_tiles(mask, run, seen_rows)) {
    map_missing(mask, run);
    look_at_tiles(mask, run, seen_rows);
  }
  if (cells.empty()) return;
  note_growth(mask, run, cells);
  choose_sealing(index, run, seen_rows, cells);
}

void Planner::note_growth(const BatchMask& mask, const QueryRun& run, std::span<const std::uint32_t> cells) {
  Stream& stream = map_.stream(mask.first_stream + run.slice);
  const HalfBits* first_row = mask.row(run.slice, run.first_query);
  const std::uint32_t last_query = run.first_query + run.queries - 1;
  const std::uint32_t first = count_visible(first_row, mask.columns);
  const std::uint32_t last = count_visible(mask.row(run.slice, last_query), mask.columns);
  const Place at = stream.places[cells[run.first_query]];
  const Tile& tile = map_.tile_at(stream, at);
  if (at.row > 0 && tile.counted_row + 1 == at.row && tile.counted != 0) {
    if (first == tile.counted) ++stream.window_hits;
    if (first > tile.counted) stream.window_hits = 0;
  }
  const bool causal = run.queries > 1 && first_row[cells[last_query]] == kHidden;
  if (stream.window_hits >= kWindowHits || (causal && last - first + 1 < run.queries)) stream.windowed = true;
  const Place end = stream.places[cells[last_query]];
  map_.tile_at(stream, end).counted_row = end.row;
  map_.tile_at(stream, end).counted = last;
}

void Planner::choose_sealing(std::uint32_t index, const QueryRun& run, std::span<const std::uint32_t> seen_rows,
                             std::span<const std::uint32_t> cells) {
  Stream& stream = map_.stream(index);
  if (config_.exact) return;
  const auto rank_of = [&](std::uint32_t cell) {
    const Place at = stream.places[cell];
    return map_.tile_at(stream, at).start_rank + at.row;
  };
  // Sequences may come in turns, in many runs: what is due for all of them is what the first query has behind its tail.
  const std::uint64_t first_rank = rank_of(cells[run.oldest_query]);
  if (stream.windowed) return seal_passed(stream, first_rank);
  const std::uint64_t rank =
      config_.seals_own_rows ? rank_of(cells[run.first_query + run.queries - 1]) + 1 : first_rank;
  for (std::size_t listed = 0; listed < run.refs.size(); ++listed) {
    const TileRef& ref = stream.refs[run.refs[listed]];
    const bool seen_whole = seen_rows[listed] == map_.tile(ref.tile).used;
    seal_if_due(ref, rank, seen_whole, config_.tail_tokens);
  }
}

void Planner::seal_passed(Stream& stream, std::uint64_t rank) {
  for (const TileRef& ref : stream.refs) {
    if (ref.live != 0) seal_if_due(ref, rank, map_.tile(ref.tile).ranked, config_.tail_tokens + kPassedTokens);
  }
}

void Planner::seal_if_due(const TileRef& ref, std::uint64_t rank, bool may_start, std::uint64_t distance) {
  Tile& tile = map_.tile(ref.tile);
  if (tile.state == TileState::kSealing) tile.observed_rank = std::max(tile.observed_rank, rank);
  const bool complete = tile.state == TileState::kOpen && tile.used == map_.tile_tokens() && ref.live == tile.used;
  if (!may_start || !complete || tile.start_rank < config_.sink_tokens) return;
  if (tile.start_rank + tile.used + distance > rank) return;
  tile.state = TileState::kSealing;
  tile.observed_rank = rank;
  map_.sealing().push_back(ref.tile);
}

}  // namespace kvarn
