// Sealed tiles are met in rotated space with their scales folded into the operand; exact rows as they are. Both share
// one softmax; their sums are kept apart and joined at the end of the span: out = plain + H * rotated.
#include "attention/block_pass.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

namespace kvarn {
namespace {

constexpr HalfBits kHiddenHalf = 0xFC00;  // -infinity
constexpr float kHidden = -std::numeric_limits<float>::infinity();

constexpr std::size_t round_up_16(std::size_t count) { return (count + 15) / 16 * 16; }

}  // namespace

struct BlockPass::Tile {
  const TileView& view;
  std::size_t index;
  std::size_t first_row;  // rows before it, a multiple of 16, and from end_row on are seen by no query
  std::size_t end_row;
  const std::uint8_t* next_keys;  // sealed keys of the next tile, or nullptr
  bool has_masks;  // the mask of every active query is in masks_; else all of them see every row of every block

  std::size_t lanes() const { return round_up_16(end_row - first_row); }
};

BlockPass::BlockPass(const AttentionShape& shape, const AttentionParams& params, const float* slopes,
                     std::size_t max_queries, Carver& carver)
    : shape_(shape), params_(params), kernel_(kernels()), slopes_(slopes), group_(shape.heads / shape.kv_heads) {
  take_memory(max_queries, carver);
}

void BlockPass::take_memory(std::size_t max_queries, Carver& carver) {
  const std::size_t rows = max_queries * group_;
  const std::size_t tokens = shape_.tile_tokens;
  const std::size_t longest = std::max<std::size_t>(shape_.dim_k, tokens);
  const std::uint32_t widest_dim = std::max(shape_.dim_k, shape_.dim_v);
  active_ = carver.take<std::uint32_t>(max_queries);
  queries_plain_ = carver.take<float>(rows * shape_.dim_k);
  queries_rotated_data_ = carver.take<float>(rows * shape_.dim_k);
  operand_ = carver.take<float>(rows * shape_.dim_k);
  digits_ = carver.take<std::int8_t>(2 * rows * longest);
  folded_ = carver.take<FoldedVector>(rows);
  dots_ = carver.take<DotVector>(2 * rows);
  score_rows_ = carver.take<ScoreRow>(group_);
  state_pointers_ = carver.take<SoftmaxState*>(group_);
  keep_ = carver.take<float>(rows);
  scores_ = carver.take<float>(rows * tokens);
  outputs_ = carver.take<float*>(rows);
  states_ = carver.take<SoftmaxState>(rows);
  plain_ = carver.take<float>(rows * shape_.dim_v);
  rotated_ = carver.take<float>(rows * shape_.dim_v);
  total_states_ = carver.take<SoftmaxState>(rows);
  total_values_ = carver.take<float>(rows * shape_.dim_v);
  row_scale_ = carver.take<float>(longest);
  row_zero_ = carver.take<float>(longest);
  lane_scale_ = carver.take<float>(std::max<std::size_t>(tokens, shape_.dim_v));
  mask_ = carver.take<float>(tokens);
  masks_ = carver.take<HalfBits>(max_queries * tokens);
  seen_by_any_ = carver.take<std::uint8_t>(tokens);
  seen_by_all_ = carver.take<std::uint8_t>(tokens);
  head_blocks_ = carver.take<const HalfBits*>(tokens / kBlockTokens);
  zeros_ = carver.take<HalfBits>(head_block_values(widest_dim));
  shown_values_ = carver.take<HalfBits>(tokens * shape_.dim_v);
  panel_ = carver.take<float>(kPanelLanes * longest);
}

void BlockPass::begin(const QueryBlock& block) {
  block_ = block;
  queries_rotated_ = false;
  const AttentionJob& job = *block.job;
  for (std::size_t query = 0; query < block.queries; ++query) {
    const float* heads = job.q + (block.first_query + query) * job.q_query_stride;
    for (std::size_t head = 0; head < group_; ++head) {
      const float* from = heads + (block.kv_head * group_ + head) * job.q_head_stride;
      float* to = queries_plain_ + (query * group_ + head) * shape_.dim_k;
      for (std::size_t channel = 0; channel < shape_.dim_k; ++channel) to[channel] = from[channel] * params_.scale;
    }
  }
}

void BlockPass::run_span(std::size_t first, std::size_t last) {
  std::fill_n(states_, rows(), SoftmaxState{kHidden, 0.0f});
  std::fill_n(plain_, rows() * shape_.dim_v, 0.0f);
  std::fill_n(rotated_, rows() * shape_.dim_v, 0.0f);
  plain_used_ = rotated_used_ = false;
  for (std::size_t index = first; index < last; ++index) {
    const TileView* next = index + 1 < last ? &block_.job->tiles[index + 1] : nullptr;
    const bool is_sealed = next != nullptr && next->k.records != nullptr;
    run_tile(block_.job->tiles[index], index, is_sealed ? key_record(*next) : nullptr);
  }
  if (!rotated_used_) return;
  kernel_.rotate(rotated_, rows(), shape_.dim_v);
  for (std::size_t i = 0; i < rows() * shape_.dim_v; ++i) plain_[i] += rotated_[i];
}

void BlockPass::find_active(std::size_t index) {
  const std::size_t tiles = block_.job->tiles.size();
  active_count_ = 0;
  all_see_all_ = true;
  for (std::uint32_t query = 0; query < block_.queries; ++query) {
    const Visibility seen = block_.job->visibility[(block_.first_query + query) * tiles + index];
    if (seen == Visibility::kNone) continue;
    active_[active_count_++] = query;
    all_see_all_ &= seen == Visibility::kAll;
  }
}

const std::uint8_t* BlockPass::key_record(const TileView& view) const {
  return view.k.records + block_.kv_head * record_bytes({shape_.dim_k, shape_.tile_tokens, shape_.k_bits});
}

const std::uint8_t* BlockPass::value_record(const TileView& view) const {
  return view.v.records + block_.kv_head * record_bytes({shape_.tile_tokens, shape_.dim_v, shape_.v_bits});
}

void BlockPass::run_tile(const TileView& view, std::size_t index, const std::uint8_t* next_keys) {
  find_active(index);
  if (active_count_ == 0 || view.used_rows == 0) return;
  const bool is_exact = view.k.records == nullptr && view.v.records == nullptr;
  Tile tile{view, index, 0, view.used_rows, next_keys, false};
  if (!all_see_all_ || view.has_gaps || view.used_rows % kBlockTokens != 0) read_masks(tile);
  if (!all_see_all_ && is_exact) narrow(tile);
  view.k.records != nullptr ? score_sealed(tile) : score_exact(tile);
  weigh(tile);
  view.v.records != nullptr ? add_sealed_values(tile) : add_exact_values(tile);
}

void BlockPass::read_masks(Tile& tile) {
  tile.has_masks = true;
  const std::uint32_t* cells = tile.view.cells;
  std::uint32_t jumps = 0;  // no bit is set if the cells are neighbours
  for (std::uint32_t row = 0; row < tile.view.used_rows; ++row) jumps |= cells[row] ^ (cells[0] + row);
  const bool is_contiguous = jumps == 0 && cells[tile.view.used_rows - 1] < block_.job->mask_columns;
  for (std::size_t active = 0; active < active_count_; ++active) read_mask(tile, active, is_contiguous);
}

// The mask of one active query over the tile's rows.
void BlockPass::read_mask(const Tile& tile, std::size_t active, bool is_contiguous) {
  const AttentionJob& job = *block_.job;
  const std::size_t query = block_.first_query + active_[active];
  const bool sees_all = job.visibility[query * job.tiles.size() + tile.index] == Visibility::kAll;
  const HalfBits* columns = sees_all ? nullptr : job.mask + query * job.mask_stride;
  const std::uint32_t* cells = tile.view.cells;
  const std::size_t used = tile.view.used_rows;
  HalfBits* mask = masks_ + active * shape_.tile_tokens;
  if (sees_all && !tile.view.has_gaps) {
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
void BlockPass::narrow(Tile& tile) const {
  const auto is_seen = [&](std::size_t first_row) {
    bool seen = false;
    for (std::size_t active = 0; active < active_count_ && !seen; ++active) {
      const HalfBits* mask = mask_of(active) + first_row;
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
}

TileScales BlockPass::load_scales(const TileShape& record_shape, const std::uint8_t* record) {
  kernel_.halves_to_floats(record + row_scale_offset(record_shape), record_shape.rows, row_scale_);
  kernel_.halves_to_floats(record + row_zero_offset(record_shape), record_shape.rows, row_zero_);
  kernel_.halves_to_floats(record + lane_scale_offset(record_shape), record_shape.lanes, lane_scale_);
  return {row_scale_, row_zero_, lane_scale_};
}

void BlockPass::score_sealed(const Tile& tile) {
  if (!std::exchange(queries_rotated_, true)) {
    std::copy_n(queries_plain_, rows() * shape_.dim_k, queries_rotated_data_);
    kernel_.rotate(queries_rotated_data_, rows(), shape_.dim_k);
  }
  const TileShape record_shape{shape_.dim_k, shape_.tile_tokens, shape_.k_bits};
  const std::uint8_t* record = key_record(tile.view);
  const TileScales scales = load_scales(record_shape, record);
  const RowFold fold{scales.row_scale, scales.row_zero, shape_.dim_k, shape_.k_bits};
  const std::size_t group_values = group_ * shape_.dim_k;
  for (std::size_t active = 0; active < active_count_; ++active) {  // the heads of one query lie together
    kernel_.fold_vectors(queries_rotated_data_ + active_[active] * group_values, shape_.dim_k, group_, fold,
                         digits_ + 2 * active * group_values, folded_ + active * group_);
  }
  for (std::size_t packed = 0; packed < active_count_ * group_; ++packed) {
    dots_[packed].out = scores_ + packed * shape_.tile_tokens;
    dots_[packed].adds = false;
  }
  list_dots(shape_.dim_k);
  const std::uint8_t* ahead = tile.view.v.records == nullptr ? nullptr : value_record(tile.view);
  kernel_.dot_codes({record + codes_offset(record_shape), shape_.dim_k, tile.lanes(), shape_.k_bits, ahead}, dots_,
                    dot_count_, scales.lane_scale);
}

// Gives the dots of all packed rows their digits; what one level of digits cannot say follows after all first levels.
void BlockPass::list_dots(std::size_t rows) {
  dot_count_ = active_count_ * group_;
  for (std::size_t packed = 0; packed < active_count_ * group_; ++packed) {
    const FoldedVector& folded = folded_[packed];
    DotVector& dot = dots_[packed];
    dot.digits = digits_ + 2 * packed * rows;
    dot.unit = folded.unit;
    dot.bias = folded.bias;
    if (folded.levels == 1) continue;
    dots_[dot_count_++] = {dot.digits + rows, dot.out, folded.unit / kSecondDigits, 0.0f, 1.0f, true};
  }
}

void BlockPass::find_head_blocks(const Tile& tile, const TileSide& side, std::uint32_t dim) {
  const std::size_t values = head_block_values(dim);
  for (std::size_t block = tile.first_row / kBlockTokens; block * kBlockTokens < tile.end_row; ++block) {
    const HalfBits* all_heads = side.blocks[block];
    head_blocks_[block] = all_heads == nullptr ? zeros_ : all_heads + block_.kv_head * values;
    if (all_heads != nullptr || std::exchange(zeros_ready_, true)) continue;
    std::fill_n(zeros_, head_block_values(std::max(shape_.dim_k, shape_.dim_v)), HalfBits{0});
  }
}

void BlockPass::score_exact(const Tile& tile) {
  const std::size_t dim = shape_.dim_k;
  find_head_blocks(tile, tile.view.k, shape_.dim_k);
  const float* queries = queries_plain_;
  if (active_count_ != block_.queries) {
    for (std::size_t i = 0; i < active_count_; ++i) {
      std::copy_n(queries_plain_ + row_of(i, 0) * dim, group_ * dim, operand_ + i * group_ * dim);
    }
    queries = operand_;
  }
  for (std::size_t packed = 0; packed < active_count_ * group_; ++packed) {
    outputs_[packed] = scores_ + packed * shape_.tile_tokens + tile.first_row;
  }
  kernel_.accumulate_half_lanes(head_blocks_ + tile.first_row / kBlockTokens, dim, tile.lanes(),
                                {.a = queries,
                                 .a_stride = dim,
                                 .vectors = active_count_ * group_,
                                 .keep = nullptr,
                                 .out = outputs_,
                                 .panel = panel_});
}

// Scores to softmax weights. Rows of one query share its mask.
void BlockPass::weigh(const Tile& tile) {
  for (std::size_t active = 0; active < active_count_; ++active) {
    if (tile.has_masks) kernel_.halves_to_floats(mask_of(active) + tile.first_row, tile.lanes(), mask_);
    for (std::size_t head = 0; head < group_; ++head) {
      const std::size_t packed = active * group_ + head;
      score_rows_[head] = {scores_ + packed * shape_.tile_tokens + tile.first_row, tile.lanes(),
                           tile.has_masks ? mask_ : nullptr, slopes_[block_.kv_head * group_ + head], params_.soft_cap};
      state_pointers_[head] = states_ + row_of(active, head);
    }
    kernel_.softmax_steps(score_rows_, group_, state_pointers_, keep_ + active * group_);
  }
}

// Brings the accumulators that this tile adds nothing to down to the new maximum.
void BlockPass::rescale(float* accumulators) {
  for (std::size_t packed = 0; packed < active_count_ * group_; ++packed) {
    if (keep_[packed] == 1.0f) continue;
    kernel_.scale_values(accumulators + row_of(packed / group_, packed % group_) * shape_.dim_v, shape_.dim_v,
                         keep_[packed]);
  }
}

void BlockPass::add_sealed_values(const Tile& tile) {
  if (plain_used_) rescale(plain_);
  rotated_used_ = true;
  const std::size_t tokens = shape_.tile_tokens;
  const TileShape record_shape{shape_.tile_tokens, shape_.dim_v, shape_.v_bits};
  const std::uint8_t* record = value_record(tile.view);
  const TileScales scales = load_scales(record_shape, record);
  const RowFold fold{scales.row_scale, scales.row_zero, tokens, shape_.v_bits};
  for (std::size_t packed = 0; packed < active_count_ * group_; ++packed) {
    if (tile.lanes() < tokens) std::fill_n(scores_ + packed * tokens + tile.lanes(), tokens - tile.lanes(), 0.0f);
    dots_[packed].out = rotated_ + row_of(packed / group_, packed % group_) * shape_.dim_v;
    dots_[packed].keep = keep_[packed];
    dots_[packed].adds = true;
  }
  kernel_.fold_vectors(scores_, tokens, active_count_ * group_, fold, digits_, folded_);
  list_dots(tokens);
  kernel_.dot_codes({record + codes_offset(record_shape), tokens, shape_.dim_v, shape_.v_bits, tile.next_keys}, dots_,
                    dot_count_, scales.lane_scale);
}

void BlockPass::add_exact_values(const Tile& tile) {
  if (rotated_used_) rescale(rotated_);
  plain_used_ = true;
  find_head_blocks(tile, tile.view.v, shape_.dim_v);
  const bool sees_all = all_see_all_ && !tile.view.has_gaps;
  sees_all || all_values_finite(tile) ? add_exact_rows(tile, 0, active_count_) : add_guarded_values(tile);
}

bool BlockPass::all_values_finite(const Tile& tile) const {
  for (std::size_t row = tile.first_row; row < tile.end_row; row += kBlockTokens) {
    const std::size_t rows = std::min<std::size_t>(kBlockTokens, tile.end_row - row);
    if (!kernel_.all_finite(head_blocks_[row / kBlockTokens], rows * shape_.dim_v)) return false;
  }
  return true;
}

// A weight of zero does not undo a NaN or an infinity. Rows that no query sees become zeros; a row that some see and
// others do not is a danger only if it is not finite: then every query gets a sum of its own.
void BlockPass::add_guarded_values(const Tile& tile) {
  note_seen(tile, 0, active_count_);
  const bool is_separate = needs_separate_values(tile);
  const std::size_t count = is_separate ? 1 : active_count_;
  for (std::size_t active = 0; active < active_count_; active += count) {
    if (is_separate) note_seen(tile, active, count);
    find_head_blocks(tile, tile.view.v, shape_.dim_v);
    hide_unseen_values(tile);
    add_exact_rows(tile, active, count);
  }
}

// Which rows any and all of some active queries see.
void BlockPass::note_seen(const Tile& tile, std::size_t first_active, std::size_t count) {
  std::fill_n(seen_by_any_, shape_.tile_tokens, std::uint8_t{0});
  std::fill_n(seen_by_all_, shape_.tile_tokens, std::uint8_t{1});
  for (std::size_t active = first_active; active < first_active + count; ++active) {
    const HalfBits* mask = mask_of(active);
    for (std::size_t row = tile.first_row; row < tile.end_row; ++row) {
      const std::uint8_t seen = mask[row] != kHiddenHalf;
      seen_by_any_[row] |= seen;
      seen_by_all_[row] &= seen;
    }
  }
}

const HalfBits* BlockPass::value_row(std::size_t row) const {
  return head_blocks_[row / kBlockTokens] + row % kBlockTokens * shape_.dim_v;
}

bool BlockPass::needs_separate_values(const Tile& tile) const {
  for (std::size_t row = tile.first_row; row < tile.end_row; ++row) {
    if (seen_by_any_[row] != seen_by_all_[row] && !kernel_.all_finite(value_row(row), shape_.dim_v)) return true;
  }
  return false;
}

// Puts copies in the place of the head blocks at hand, with zeros in the rows that are not seen.
void BlockPass::hide_unseen_values(const Tile& tile) {
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

void BlockPass::add_exact_rows(const Tile& tile, std::size_t first_active, std::size_t count) {
  for (std::size_t i = 0; i < count * group_; ++i) {
    outputs_[i] = plain_ + row_of(first_active + i / group_, i % group_) * shape_.dim_v;
  }
  kernel_.accumulate_half_rows(head_blocks_ + tile.first_row / kBlockTokens, tile.end_row - tile.first_row,
                               shape_.dim_v,
                               {.a = scores_ + first_active * group_ * shape_.tile_tokens + tile.first_row,
                                .a_stride = shape_.tile_tokens,
                                .vectors = count * group_,
                                .keep = keep_ + first_active * group_,
                                .out = outputs_,
                                .panel = panel_});
}

}  // namespace kvarn
