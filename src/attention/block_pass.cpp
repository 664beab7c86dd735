// A span is taken phase by phase: all scores, one softmax, all values. Sealed tiles are met in rotated space, exact
// rows as they are; their sums are kept apart and joined at the end of the span: out = plain + H * rotated.
#include "attention/block_pass.hpp"

#include <algorithm>
#include <limits>

#include "format/exact_block.hpp"

namespace kvarn {
namespace {

constexpr HalfBits kHiddenHalf = 0xFC00;  // -infinity
constexpr float kHidden = -std::numeric_limits<float>::infinity();

constexpr std::size_t round_up_16(std::size_t count) { return (count + 15) / 16 * 16; }

}  // namespace

BlockPass::BlockPass(const AttentionShape& shape, const AttentionParams& params, const float* slopes,
                     std::size_t max_queries, std::size_t span_tiles, Carver& carver)
    : shape_(shape),
      params_(params),
      kernel_(kernels()),
      slopes_(slopes),
      group_(shape.heads / shape.kv_heads),
      stride_(span_tiles * shape.tile_tokens),
      sealed_(shape, max_queries * group_, span_tiles, carver),
      exact_(shape, max_queries * group_, carver) {
  const std::size_t rows = max_queries * group_;
  active_ = carver.take<std::uint32_t>(span_tiles * max_queries);
  tiles_ = carver.take<SpanTile>(span_tiles);
  queries_ = carver.take<float>(rows * shape_.dim_k);
  scores_ = carver.take<float>(rows * stride_);
  masks_ = carver.take<HalfBits>(max_queries * stride_);
  mask_ = carver.take<float>(shape_.tile_tokens);
  states_ = carver.take<SoftmaxState>(rows);
  values_ = carver.take<float>(rows * shape_.dim_v);
  total_states_ = carver.take<SoftmaxState>(rows);
  total_values_ = carver.take<float>(rows * shape_.dim_v);
}

void BlockPass::begin(const QueryBlock& block) {
  block_ = block;
  const AttentionJob& job = *block.job;
  for (std::size_t query = 0; query < block.queries; ++query) {
    const float* heads = job.q + (block.first_query + query) * job.q_query_stride;
    for (std::size_t head = 0; head < group_; ++head) {
      const float* from = heads + (block.kv_head * group_ + head) * job.q_head_stride;
      float* to = queries_ + (query * group_ + head) * shape_.dim_k;
      std::copy_n(from, shape_.dim_k, to);
    }
  }
  kernel_.scale_values(queries_, rows() * shape_.dim_k, params_.scale);
  sealed_.begin(queries_, rows(), block.kv_head);
  exact_.begin(queries_, block.kv_head);
}

void BlockPass::run_span(std::size_t first, std::size_t last) {
  const std::span<const SpanTile> tiles = find_tiles(first, last);
  sealed_.fetch_ahead(tiles);
  const std::size_t columns = tiles.empty() ? 0 : tiles.back().column + tiles.back().width;
  sealed_.score(tiles, scores_, stride_);
  for (const SpanTile& tile : tiles) {
    if (tile.view->k.records == nullptr) exact_.score(tile, scores_, stride_);
    finish_scores(tile);
    hide_rest(tile);
  }
  kernel_.softmax_rows(scores_, stride_, rows(), columns, states_);
  const bool has_sealed = sealed_.add_values(tiles, scores_, stride_, values_);
  if (has_sealed) kernel_.rotate(values_, rows(), shape_.dim_v);
  if (!has_sealed) std::fill_n(values_, rows() * shape_.dim_v, 0.0f);
  for (const SpanTile& tile : tiles) {
    if (tile.view->v.records == nullptr) exact_.add_values(tile, scores_, masks_, stride_, values_);
  }
}

// The tiles of the span that some query of the block sees something of.
std::span<const SpanTile> BlockPass::find_tiles(std::size_t first, std::size_t last) {
  std::size_t count = 0;
  std::size_t column = 0;
  for (std::size_t index = first; index < last; ++index) {
    const TileView& view = block_.job->tiles[index];
    SpanTile& tile = tiles_[count];
    if (view.used_rows == 0 || !find_active(index, active_ + count * block_.queries, tile)) continue;
    const bool is_exact = view.k.records == nullptr && view.v.records == nullptr;
    tile.view = &view;
    tile.column = column;
    tile.width = is_exact ? round_up_16(view.used_rows) : shape_.tile_tokens;
    tile.first_row = 0;
    tile.end_row = view.used_rows;
    const bool all_shown = tile.sees_all;
    tile.sees_all = all_shown && !view.has_gaps;
    tile.has_hidden = !tile.sees_all;
    tile.has_masks = !tile.sees_all || view.used_rows % kBlockTokens != 0;
    if (tile.has_masks) read_masks(index, tile);
    if (!all_shown && is_exact) narrow(tile);
    column += tile.width;
    ++count;
  }
  return {tiles_, count};
}

bool BlockPass::find_active(std::size_t index, std::uint32_t* active, SpanTile& tile) {
  const std::size_t tiles = block_.job->tiles.size();
  tile.active = active;
  tile.active_count = 0;
  tile.sees_all = true;
  for (std::uint32_t query = 0; query < block_.queries; ++query) {
    const Visibility seen = block_.job->visibility[(block_.first_query + query) * tiles + index];
    if (seen == Visibility::kNone) continue;
    active[tile.active_count++] = query;
    tile.sees_all &= seen == Visibility::kAll;
  }
  return tile.active_count != 0;
}

void BlockPass::read_masks(std::size_t index, SpanTile& tile) {
  const std::uint32_t* cells = tile.view->cells;
  const std::uint32_t used = tile.view->used_rows;
  std::uint32_t jumps = 0;  // no bit is set if the cells are neighbours
  for (std::uint32_t row = 0; row < used; ++row) jumps |= cells[row] ^ (cells[0] + row);
  // Both ends: behind a gap in row 0 the neighbours of kNoCell would be cells 0, 1, 2 ...
  const std::uint32_t columns = block_.job->mask_columns;
  const bool is_contiguous = jumps == 0 && cells[0] < columns && cells[used - 1] < columns;
  for (std::size_t i = 0; i < tile.active_count; ++i) read_mask(index, tile, tile.active[i], is_contiguous);
}

// The mask of one query of the block over the tile's rows.
void BlockPass::read_mask(std::size_t index, const SpanTile& tile, std::uint32_t query, bool is_contiguous) {
  const AttentionJob& job = *block_.job;
  const std::size_t in_job = block_.first_query + query;
  const bool sees_all = job.visibility[in_job * job.tiles.size() + index] == Visibility::kAll;
  const HalfBits* columns = sees_all ? nullptr : job.mask + in_job * job.mask_stride;
  const std::uint32_t* cells = tile.view->cells;
  const std::size_t used = tile.view->used_rows;
  HalfBits* mask = masks_ + query * stride_ + tile.column;
  if (sees_all && !tile.view->has_gaps) {
    std::fill_n(mask, used, HalfBits{0});
  } else if (!sees_all && is_contiguous) {
    std::copy_n(columns + cells[0], used, mask);
  } else {
    for (std::size_t row = 0; row < used; ++row) {
      const bool has_value = cells[row] < job.mask_columns;
      mask[row] = has_value ? (sees_all ? HalfBits{0} : columns[cells[row]]) : kHiddenHalf;
    }
  }
  std::fill(mask + used, mask + round_up_16(used), kHiddenHalf);
}

// Leaves out the blocks at both ends that no query sees: the causal diagonal, the edge of a sliding window.
void BlockPass::narrow(SpanTile& tile) const {
  const auto is_seen = [&](std::size_t first_row) {
    bool seen = false;
    for (std::size_t active = 0; active < tile.active_count && !seen; ++active) {
      const HalfBits* mask = masks_ + tile.active[active] * stride_ + tile.column + first_row;
      for (std::size_t row = 0; row < kBlockTokens; ++row) seen |= mask[row] != kHiddenHalf;
    }
    return seen;
  };
  std::size_t first = 0;
  std::size_t end = round_up_16(tile.end_row);
  while (first + kBlockTokens < end && !is_seen(first)) first += kBlockTokens;
  while (first + kBlockTokens < end && !is_seen(end - kBlockTokens)) end -= kBlockTokens;
  tile.first_row = first;
  tile.end_row = std::min(end, tile.end_row);
  if (tile.active_count == 1) narrow_to_query(tile);
}

// A single query, as in decode: rows beyond the last one it sees are left out one by one.
void BlockPass::narrow_to_query(SpanTile& tile) const {
  const HalfBits* mask = masks_ + tile.active[0] * stride_ + tile.column;
  while (tile.end_row > tile.first_row + 1 && mask[tile.end_row - 1] == kHiddenHalf) --tile.end_row;
  tile.has_hidden = std::find(mask + tile.first_row, mask + tile.end_row, kHiddenHalf) != mask + tile.end_row;
}

// Soft cap and mask of what was computed.
void BlockPass::finish_scores(const SpanTile& tile) {
  if (!tile.has_masks && !(params_.soft_cap > 0.0f)) return;
  for (std::size_t i = 0; i < tile.active_count; ++i) {
    const std::size_t query = tile.active[i];
    const std::size_t column = tile.column + tile.first_row;
    if (tile.has_masks) kernel_.halves_to_floats(masks_ + query * stride_ + column, tile.lanes(), mask_);
    for (std::size_t head = 0; head < group_; ++head) {
      kernel_.finish_scores({scores_ + (query * group_ + head) * stride_ + column, tile.lanes(),
                             tile.has_masks ? mask_ : nullptr, slopes_[block_.kv_head * group_ + head],
                             params_.soft_cap});
    }
  }
}

// Hides the columns that were not computed: rows that no query sees, and all rows from queries that see none.
void BlockPass::hide_rest(const SpanTile& tile) {
  const std::size_t end = tile.first_row + tile.lanes();
  const bool is_whole = tile.first_row == 0 && end == tile.width;
  if (is_whole && tile.active_count == block_.queries) return;
  std::size_t next = 0;
  for (std::size_t query = 0; query < block_.queries; ++query) {
    const bool is_active = next < tile.active_count && tile.active[next] == query;
    next += is_active;
    for (std::size_t head = 0; head < group_; ++head) {
      float* scores = scores_ + (query * group_ + head) * stride_ + tile.column;
      std::fill(scores, scores + (is_active ? tile.first_row : tile.width), kHidden);
      if (is_active) std::fill(scores + end, scores + tile.width, kHidden);
    }
  }
}

}  // namespace kvarn
