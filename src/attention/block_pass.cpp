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
  std::size_t lanes;              // used rows, rounded up to 16
  bool has_holes;                 // some row below `lanes` holds no token
  bool is_contiguous;             // the cells are neighbours in the mask
  const std::uint8_t* next_keys;  // sealed keys of the next tile, or nullptr
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
  const std::size_t widest_dim = std::max(shape_.dim_k, shape_.dim_v);
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
  mask_halves_ = carver.take<HalfBits>(tokens);
  seen_by_any_ = carver.take<std::uint8_t>(tokens);
  seen_by_all_ = carver.take<std::uint8_t>(tokens);
  row_pointers_ = carver.take<const HalfBits*>(tokens);
  zero_row_ = carver.take<HalfBits>(widest_dim);
  panel_ = carver.take<float>(kPanelLanes * longest);
}

void BlockPass::begin(const QueryBlock& block) {
  block_ = block;
  queries_rotated_ = false;
  std::fill_n(zero_row_, std::max(shape_.dim_k, shape_.dim_v), HalfBits{0});
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
  for (std::uint32_t query = 0; query < block_.queries; ++query) {
    const Visibility seen = block_.job->visibility[(block_.first_query + query) * tiles + index];
    if (seen != Visibility::kNone) active_[active_count_++] = query;
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
  const std::size_t lanes = round_up_16(view.used_rows);
  std::uint32_t jumps = 0;  // no bit is set if the cells are neighbours
  for (std::uint32_t row = 0; row < view.used_rows; ++row) jumps |= view.cells[row] ^ (view.cells[0] + row);
  const bool is_contiguous = jumps == 0 && view.cells[view.used_rows - 1] < block_.job->mask_columns;
  const std::uint32_t* cells_end = view.cells + view.used_rows;
  const bool has_holes =
      lanes != view.used_rows || (!is_contiguous && std::find(view.cells, cells_end, TileView::kNoCell) != cells_end);
  const Tile tile{view, index, lanes, has_holes, is_contiguous, next_keys};
  view.k.records != nullptr ? score_sealed(tile) : score_exact(tile);
  weigh(tile);
  view.v.records != nullptr ? add_sealed_values(tile) : add_exact_values(tile);
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
  kernel_.dot_codes({record + codes_offset(record_shape), shape_.dim_k, tile.lanes, shape_.k_bits, ahead}, dots_,
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

const HalfBits* BlockPass::exact_row(const TileSide& side, std::uint32_t dim, std::size_t row) const {
  const HalfBits* rows_of_block = side.blocks[row / 16];
  if (rows_of_block == nullptr) return zero_row_;
  return rows_of_block + (row % 16 * shape_.kv_heads + block_.kv_head) * dim;
}

void BlockPass::score_exact(const Tile& tile) {
  const std::size_t dim = shape_.dim_k;
  for (std::size_t row = 0; row < tile.lanes; ++row) {
    row_pointers_[row] = row < tile.view.used_rows ? exact_row(tile.view.k, shape_.dim_k, row) : zero_row_;
  }
  const float* queries = queries_plain_;
  if (active_count_ != block_.queries) {
    for (std::size_t i = 0; i < active_count_; ++i) {
      std::copy_n(queries_plain_ + row_of(i, 0) * dim, group_ * dim, operand_ + i * group_ * dim);
    }
    queries = operand_;
  }
  for (std::size_t packed = 0; packed < active_count_ * group_; ++packed) {
    outputs_[packed] = scores_ + packed * shape_.tile_tokens;
  }
  kernel_.accumulate_half_lanes(row_pointers_, dim, tile.lanes,
                                {.a = queries,
                                 .a_stride = dim,
                                 .vectors = active_count_ * group_,
                                 .bias = nullptr,
                                 .lane_scale = nullptr,
                                 .keep = nullptr,
                                 .out = outputs_,
                                 .panel = panel_});
}

// The mask of one active query over the tile's rows; nullptr if it is all zeros.
const float* BlockPass::read_mask(const Tile& tile, std::size_t active) {
  const AttentionJob& job = *block_.job;
  const std::size_t query = block_.first_query + active_[active];
  const bool reads = job.visibility[query * job.tiles.size() + tile.index] == Visibility::kSome;
  if (!reads && !tile.has_holes) return nullptr;
  const HalfBits* columns = reads ? job.mask + query * job.mask_stride : nullptr;
  const std::uint32_t* cells = tile.view.cells;
  if (reads && tile.is_contiguous) {
    std::copy_n(columns + cells[0], tile.view.used_rows, mask_halves_);
  } else {
    for (std::size_t row = 0; row < tile.view.used_rows; ++row) {
      const bool has_value = cells[row] < job.mask_columns;
      mask_halves_[row] = has_value ? (reads ? columns[cells[row]] : HalfBits{0}) : kHiddenHalf;
    }
  }
  std::fill(mask_halves_ + tile.view.used_rows, mask_halves_ + tile.lanes, kHiddenHalf);
  kernel_.halves_to_floats(mask_halves_, tile.lanes, mask_);
  return mask_;
}

void BlockPass::note_seen(const Tile& tile, const float* mask) {
  for (std::size_t row = 0; row < tile.lanes; ++row) {
    const std::uint8_t seen = mask == nullptr || mask[row] != kHidden;
    seen_by_any_[row] |= seen;
    seen_by_all_[row] &= seen;
  }
}

// Scores to softmax weights. Rows of one query share its mask.
void BlockPass::weigh(const Tile& tile) {
  const bool notes = tile.view.v.records == nullptr;
  if (notes) {
    std::fill_n(seen_by_any_, tile.lanes, std::uint8_t{0});
    std::fill_n(seen_by_all_, tile.lanes, std::uint8_t{1});
  }
  for (std::size_t active = 0; active < active_count_; ++active) {
    const float* mask = read_mask(tile, active);
    if (notes) note_seen(tile, mask);
    for (std::size_t head = 0; head < group_; ++head) {
      const std::size_t packed = active * group_ + head;
      score_rows_[head] = {scores_ + packed * shape_.tile_tokens, tile.lanes, mask,
                           slopes_[block_.kv_head * group_ + head], params_.soft_cap};
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
    if (tile.lanes < tokens) std::fill_n(scores_ + packed * tokens + tile.lanes, tokens - tile.lanes, 0.0f);
    dots_[packed].out = rotated_ + row_of(packed / group_, packed % group_) * shape_.dim_v;
    dots_[packed].keep = keep_[packed];
    dots_[packed].adds = true;
  }
  kernel_.fold_vectors(scores_, tokens, active_count_ * group_, fold, digits_, folded_);
  list_dots(tokens);
  kernel_.dot_codes({record + codes_offset(record_shape), tokens, shape_.dim_v, shape_.v_bits, tile.next_keys}, dots_,
                    dot_count_, scales.lane_scale);
}

// A weight of zero does not undo a NaN. Rows that no query sees are not read; a row that some see and others do not is
// a danger only if it is not finite: then every query gets a sum of its own.
bool BlockPass::needs_separate_values(const Tile& tile) const {
  if (active_count_ == 1) return false;
  for (std::size_t row = 0; row < tile.view.used_rows; ++row) {
    if (seen_by_any_[row] == seen_by_all_[row]) continue;
    if (!kernel_.all_finite(exact_row(tile.view.v, shape_.dim_v, row), shape_.dim_v)) return true;
  }
  return false;
}

void BlockPass::add_exact_values(const Tile& tile) {
  if (rotated_used_) rescale(rotated_);
  plain_used_ = true;
  if (!needs_separate_values(tile)) return add_exact_rows(tile, 0, active_count_);
  for (std::size_t active = 0; active < active_count_; ++active) {
    std::fill_n(seen_by_any_, tile.lanes, std::uint8_t{0});
    note_seen(tile, read_mask(tile, active));
    add_exact_rows(tile, active, 1);
  }
}

void BlockPass::add_exact_rows(const Tile& tile, std::size_t first_active, std::size_t count) {
  for (std::size_t row = 0; row < tile.view.used_rows; ++row) {
    row_pointers_[row] = seen_by_any_[row] ? exact_row(tile.view.v, shape_.dim_v, row) : zero_row_;
  }
  for (std::size_t i = 0; i < count * group_; ++i) {
    outputs_[i] = plain_ + row_of(first_active + i / group_, i % group_) * shape_.dim_v;
  }
  kernel_.accumulate_half_rows(row_pointers_, tile.view.used_rows, shape_.dim_v,
                               {.a = scores_ + first_active * group_ * shape_.tile_tokens,
                                .a_stride = shape_.tile_tokens,
                                .vectors = count * group_,
                                .bias = nullptr,
                                .lane_scale = nullptr,
                                .keep = keep_ + first_active * group_,
                                .out = outputs_,
                                .panel = panel_});
}

}  // namespace kvarn
