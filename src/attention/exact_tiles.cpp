#include "attention/exact_tiles.hpp"

#include <algorithm>
#include <utility>

#include "format/exact_block.hpp"

namespace kvarn {
namespace {

constexpr HalfBits kHiddenHalf = 0xFC00;  // -infinity

}  // namespace

ExactTiles::ExactTiles(const AttentionShape& shape, std::size_t rows, Carver& carver)
    : shape_(shape), kernel_(kernels()), group_(shape.heads / shape.kv_heads) {
  const std::size_t tokens = shape.tile_tokens;
  outputs_ = carver.take<float*>(rows);
  seen_by_any_ = carver.take<std::uint8_t>(tokens);
  seen_by_all_ = carver.take<std::uint8_t>(tokens);
  head_blocks_ = carver.take<const HalfBits*>(tokens / kBlockTokens);
  value_blocks_ = carver.take<const HalfBits*>(tokens / kBlockTokens);
  zeros_ = carver.take<HalfBits>(head_block_values(std::max(shape.dim_k, shape.dim_v)));
  shown_values_ = carver.take<HalfBits>(tokens * shape.dim_v);
  panel_ = carver.take<float>(kPanelLanes * std::max<std::size_t>(shape.dim_k, tokens));
}

void ExactTiles::begin(const float* queries, std::uint32_t kv_head) {
  queries_ = queries;
  kv_head_ = kv_head;
}

void ExactTiles::find_head_blocks(const SpanTile& tile, const TileSide& side, std::uint32_t dim,
                                  const HalfBits** found) {
  const std::size_t values = head_block_values(dim);
  for (std::size_t block = tile.first_row / kBlockTokens; block * kBlockTokens < tile.end_row; ++block) {
    const HalfBits* all_heads = side.blocks[block];
    found[block] = all_heads == nullptr ? zeros_ : all_heads + kv_head_ * values;
    if (all_heads != nullptr || std::exchange(zeros_ready_, true)) continue;
    std::fill_n(zeros_, head_block_values(std::max(shape_.dim_k, shape_.dim_v)), HalfBits{0});
  }
}

void ExactTiles::score(const SpanTile& tile, float* scores, std::size_t stride) {
  const bool has_values = tile.view->v.records == nullptr;
  find_head_blocks(tile, tile.view->k, shape_.dim_k, head_blocks_);
  if (has_values) find_head_blocks(tile, tile.view->v, shape_.dim_v, value_blocks_);
  const std::size_t block = tile.first_row / kBlockTokens;
  for_each_run(tile, [&](std::size_t query, std::size_t count) {
    for (std::size_t i = 0; i < count * group_; ++i) {
      outputs_[i] = scores + (query * group_ + i) * stride + tile.column + tile.first_row;
    }
    kernel_.accumulate_half_lanes(head_blocks_ + block, shape_.dim_k, tile.lanes(),
                                  {.a = queries_ + query * group_ * shape_.dim_k,
                                   .a_stride = shape_.dim_k,
                                   .vectors = count * group_,
                                   .adds = false,
                                   .out = outputs_,
                                   .panel = panel_,
                                   .ahead = has_values ? value_blocks_ + block : nullptr});
  });
}

void ExactTiles::add_values(const SpanTile& tile, const float* weights, const HalfBits* masks, std::size_t stride,
                            float* sums) {
  find_head_blocks(tile, tile.view->v, shape_.dim_v, head_blocks_);
  const bool is_safe = !tile.has_hidden || all_values_finite(tile);
  is_safe ? add_rows(tile, weights, stride, sums) : add_guarded_values(tile, weights, masks, stride, sums);
}

bool ExactTiles::all_values_finite(const SpanTile& tile) const {
  for (std::size_t row = tile.first_row; row < tile.end_row; row += kBlockTokens) {
    const std::size_t rows = std::min<std::size_t>(kBlockTokens, tile.end_row - row);
    if (!kernel_.all_finite(head_blocks_[row / kBlockTokens], rows * shape_.dim_v)) return false;
  }
  return true;
}

// A weight of zero does not undo a NaN or an infinity. Rows that no query sees become zeros; a row that some see and
// others do not is a danger only if it is not finite: then every query gets a sum of its own.
void ExactTiles::add_guarded_values(const SpanTile& tile, const float* weights, const HalfBits* masks,
                                    std::size_t stride, float* sums) {
  note_seen(tile, masks, stride);
  const std::size_t count = needs_separate_values(tile) ? 1 : tile.active_count;
  for (std::size_t active = 0; active < tile.active_count; active += count) {
    SpanTile part = tile;
    part.active += active;
    part.active_count = count;
    if (count < tile.active_count) note_seen(part, masks, stride);
    find_head_blocks(part, tile.view->v, shape_.dim_v, head_blocks_);
    hide_unseen_values(part);
    add_rows(part, weights, stride, sums);
  }
}

// Which rows any and all of the active queries see.
void ExactTiles::note_seen(const SpanTile& tile, const HalfBits* masks, std::size_t stride) {
  std::fill_n(seen_by_any_, shape_.tile_tokens, std::uint8_t{0});
  std::fill_n(seen_by_all_, shape_.tile_tokens, std::uint8_t{1});
  for (std::size_t active = 0; active < tile.active_count; ++active) {
    const HalfBits* mask = masks + tile.active[active] * stride + tile.column;
    for (std::size_t row = tile.first_row; row < tile.end_row; ++row) {
      const std::uint8_t seen = mask[row] != kHiddenHalf;
      seen_by_any_[row] |= seen;
      seen_by_all_[row] &= seen;
    }
  }
}

const HalfBits* ExactTiles::value_row(std::size_t row) const {
  return head_blocks_[row / kBlockTokens] + row % kBlockTokens * shape_.dim_v;
}

bool ExactTiles::needs_separate_values(const SpanTile& tile) const {
  for (std::size_t row = tile.first_row; row < tile.end_row; ++row) {
    if (seen_by_any_[row] != seen_by_all_[row] && !kernel_.all_finite(value_row(row), shape_.dim_v)) return true;
  }
  return false;
}

// Puts copies in the place of the head blocks at hand, with zeros in the rows that are not seen.
void ExactTiles::hide_unseen_values(const SpanTile& tile) {
  for (std::size_t row = tile.first_row; row < tile.end_row; ++row) {
    HalfBits* shown = shown_values_ + row * shape_.dim_v;
    if (seen_by_any_[row]) {
      std::copy_n(value_row(row), shape_.dim_v, shown);
    } else {
      std::fill_n(shown, shape_.dim_v, HalfBits{0});
    }
  }
  for (std::size_t row = tile.first_row; row < tile.end_row; row += kBlockTokens) {
    head_blocks_[row / kBlockTokens] = shown_values_ + row * shape_.dim_v;
  }
}

void ExactTiles::add_rows(const SpanTile& tile, const float* weights, std::size_t stride, float* sums) {
  for_each_run(tile, [&](std::size_t query, std::size_t count) {
    for (std::size_t i = 0; i < count * group_; ++i) outputs_[i] = sums + (query * group_ + i) * shape_.dim_v;
    kernel_.accumulate_half_rows(head_blocks_ + tile.first_row / kBlockTokens, tile.end_row - tile.first_row,
                                 shape_.dim_v,
                                 {.a = weights + query * group_ * stride + tile.column + tile.first_row,
                                  .a_stride = stride,
                                  .vectors = count * group_,
                                  .adds = true,
                                  .out = outputs_,
                                  .panel = panel_});
  });
}

}  // namespace kvarn
