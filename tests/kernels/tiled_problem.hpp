// Random attention problems as tiles and, beside them, as the dense rows that the reference attends to.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "attention/attend.hpp"
#include "codec/tile_codec.hpp"
#include "reference/attention.hpp"
#include "reference/record.hpp"

namespace kvarn {

enum class TileKind { kSealed, kExact, kMixed };  // mixed: both kinds in turn, K and V apart
enum class MaskKind { kNone, kAll, kCausal, kRandom, kInterleaved, kWindow };
enum class HoleKind { kOne, kNone, kMany };  // rows of exact tiles without a token; many: a third

struct ProblemSpec {
  AttentionShape shape{
      .heads = 4, .kv_heads = 2, .dim_k = 64, .dim_v = 64, .tile_tokens = 32, .k_bits = 4, .v_bits = 4};
  AttentionParams params{};
  std::uint32_t queries = 1;
  std::uint32_t tiles = 3;
  TileKind kind = TileKind::kMixed;
  MaskKind mask = MaskKind::kCausal;
  bool has_sinks = false;
  bool has_equal_values = false;
  HoleKind holes = HoleKind::kOne;
  bool has_null_blocks = false;      // some exact blocks were never written
  std::uint32_t last_tile_rows = 0;  // 0: any number
  std::uint32_t seed = 1;
};

// Owns all memory of one problem; `job` and `dense` point into it.
class TiledProblem {
 public:
  explicit TiledProblem(const ProblemSpec& spec) : spec_(spec), random_(spec.seed) {
    cells_ = spec.tiles * spec.shape.tile_tokens;
    k_.assign(std::size_t{cells_} * spec.shape.kv_heads * spec.shape.dim_k, 0.0f);
    v_.assign(std::size_t{cells_} * spec.shape.kv_heads * spec.shape.dim_v, 0.0f);
    original_k_ = k_;
    original_v_ = v_;
    make_tiles();
    make_queries();
    make_mask();
  }

  AttentionParams params() const {
    AttentionParams params = spec_.params;
    params.sinks = spec_.has_sinks ? sinks_.data() : nullptr;
    return params;
  }

  AttentionJob job(std::vector<float>& out) const {
    const std::size_t heads = spec_.shape.heads;
    out.assign(spec_.queries * heads * spec_.shape.dim_v, 777.0f);
    return {.tiles = views_,
            .queries = spec_.queries,
            .visibility = visibility_.data(),
            .mask = mask_.data(),
            .mask_stride = cells_,
            .q = q_.data(),
            .q_query_stride = heads * spec_.shape.dim_k,
            .q_head_stride = spec_.shape.dim_k,
            .out = out.data(),
            .out_query_stride = heads * spec_.shape.dim_v,
            .out_head_stride = spec_.shape.dim_v};
  }

  // With the rows that the records hold.
  std::vector<double> expected() const { return attend_to_dense(k_, v_); }

  // With the rows as they were before they were sealed.
  std::vector<double> before_sealing() const { return attend_to_dense(original_k_, original_v_); }

 private:
  std::vector<double> attend_to_dense(const std::vector<float>& k, const std::vector<float>& v) const {
    std::vector<double> out(std::size_t{spec_.queries} * spec_.shape.heads * spec_.shape.dim_v);
    reference::attend({.heads = spec_.shape.heads,
                       .kv_heads = spec_.shape.kv_heads,
                       .dim_k = spec_.shape.dim_k,
                       .dim_v = spec_.shape.dim_v,
                       .queries = spec_.queries,
                       .keys = cells_,
                       .q = q_.data(),
                       .k = k.data(),
                       .v = v.data(),
                       .mask = dense_mask_.data(),
                       .sinks = spec_.has_sinks ? sinks_.data() : nullptr,
                       .scale = spec_.params.scale,
                       .soft_cap = spec_.params.soft_cap,
                       .max_bias = spec_.params.max_bias},
                      out.data());
    return out;
  }

 public:
  // A score is a sum of dim_k products, each rounded twice (2^-24 each), of a sealed tile's folded codes, whose
  // magnitude is at most 4 times the largest |k|; an error e of the scores moves a softmax average of values within +-V
  // by at most 2 e V, and the average itself, a sum over the keys that was merged a few times, adds its own roundings.
  double tolerance() const {
    const auto largest = [](const std::vector<float>& values) {
      float most = 0.0f;
      for (const float value : values) most = std::isfinite(value) ? std::max(most, std::fabs(value)) : most;
      return static_cast<double>(most);
    };
    const double unit = std::ldexp(1.0, -24);
    const double score = spec_.shape.dim_k * largest(q_) * largest(k_) * 4 * std::fabs(spec_.params.scale);
    const double score_error =
        score * (std::sqrt(2.0 * spec_.shape.dim_k) + 8) * unit + largest(dense_mask_) * 4 * unit;
    return largest(v_) * (2 * score_error + (std::sqrt(2.0 * cells_) + 16) * 4 * unit);
  }

 private:
  using Halves = std::vector<HalfBits>;

  struct Side16 {
    std::vector<std::unique_ptr<Halves>> blocks;
    std::vector<const HalfBits*> pointers;
    std::vector<std::uint8_t> records;
  };

  // Nearly normal, and made of whole numbers: the same bits whatever the processor and its math library. The sum of 12
  // uniform numbers has variance 1.
  float normal() {
    std::int32_t sum = -6 * 0xFFFF;
    for (int i = 0; i < 6; ++i) {
      const std::uint32_t two = static_cast<std::uint32_t>(random_());
      sum += static_cast<std::int32_t>((two & 0xFFFFu) + (two >> 16));
    }
    return static_cast<float>(sum) * 0x1p-16f;
  }
  std::uint32_t below(std::uint32_t bound) {
    return std::uniform_int_distribution<std::uint32_t>(0, bound - 1)(random_);
  }

  void make_tiles() {
    sides_.reserve(2 * spec_.tiles);
    tile_cells_.reserve(spec_.tiles);
    std::vector<std::uint32_t> order(cells_);
    for (std::uint32_t cell = 0; cell < cells_; ++cell) order[cell] = cell;
    if (spec_.mask == MaskKind::kInterleaved || spec_.mask == MaskKind::kRandom) {
      std::shuffle(order.begin(), order.end(), random_);
    }
    for (std::uint32_t tile = 0; tile < spec_.tiles; ++tile) {
      const bool k_sealed = spec_.kind == TileKind::kSealed || (spec_.kind == TileKind::kMixed && tile % 2 == 0);
      const bool v_sealed = spec_.kind == TileKind::kSealed || (spec_.kind == TileKind::kMixed && tile % 3 == 0);
      const std::uint32_t tokens = spec_.shape.tile_tokens;
      const std::uint32_t last_rows = spec_.last_tile_rows != 0 ? spec_.last_tile_rows : 1 + below(tokens);
      const std::uint32_t used = tile + 1 < spec_.tiles ? tokens : last_rows;
      const auto first = order.begin() + tile * tokens;
      tile_cells_.emplace_back(first, first + used);
      std::vector<std::uint32_t>& cells = tile_cells_.back();
      if (!k_sealed && !v_sealed) make_holes(cells);
      TileView view;
      view.has_gaps = below(2) == 0 || std::count(cells.begin(), cells.end(), TileView::kNoCell) != 0;
      view.used_rows = used;
      view.cells = cells.data();
      view.k = make_side(Side::kKey, k_sealed, cells);
      view.v = make_side(Side::kValue, v_sealed, cells);
      views_.push_back(view);
    }
  }

  void make_holes(std::vector<std::uint32_t>& cells) {
    if (spec_.holes == HoleKind::kOne && cells.size() > 2) cells[cells.size() / 2] = TileView::kNoCell;
    for (std::uint32_t& cell : cells) {
      if (spec_.holes == HoleKind::kMany && below(3) == 0) cell = TileView::kNoCell;
    }
  }

  TileSide make_side(Side side, bool sealed, const std::vector<std::uint32_t>& cells) {
    const AttentionShape& shape = spec_.shape;
    const std::uint32_t dim = side == Side::kKey ? shape.dim_k : shape.dim_v;
    const std::uint32_t bits = side == Side::kKey ? shape.k_bits : shape.v_bits;
    const std::size_t row_size = std::size_t{shape.kv_heads} * dim;
    Halves rows(shape.tile_tokens * row_size, sealed ? 0x3C00 : 0x7E00);  // exact rows without a token hold NaN
    for (std::size_t i = 0; i < cells.size() * row_size; ++i) {
      const bool is_token = cells[i / row_size] != TileView::kNoCell;
      const float value = spec_.has_equal_values && side == Side::kValue ? float(i % row_size % 13) - 6.0f : normal();
      if (is_token) rows[i] = float_to_half(value);
    }
    sides_.emplace_back();
    Side16& memory = sides_.back();
    std::vector<float>& dense = side == Side::kKey ? k_ : v_;
    std::vector<float>& original = side == Side::kKey ? original_k_ : original_v_;
    const auto keep_row = [&](std::size_t row, std::vector<float>& to) {
      if (cells[row] == TileView::kNoCell) return;
      for (std::size_t i = 0; i < row_size; ++i)
        to[cells[row] * row_size + i] = half_to_float(rows[row * row_size + i]);
    };
    if (sealed) {
      for (std::size_t row = 0; row < cells.size(); ++row) keep_row(row, original);
      seal(side, dim, bits, rows, memory);
      return spread_sealed(side, dim, bits, cells, memory, dense);
    }
    for (std::size_t block = 0; block < shape.tile_tokens / 16; ++block) {
      const bool is_written = block * 16 < cells.size() && !(spec_.has_null_blocks && below(3) == 0);
      memory.blocks.push_back(is_written ? make_block(side, dim, &rows[block * 16 * row_size]) : nullptr);
      memory.pointers.push_back(is_written ? memory.blocks.back()->data() : nullptr);
    }
    for (std::size_t row = 0; row < cells.size(); ++row) {
      if (memory.pointers[row / 16] == nullptr) continue;
      keep_row(row, dense);
      keep_row(row, original);
    }
    return {.records = nullptr, .blocks = memory.pointers.data()};
  }

  // 16 rows as attention reads them: K [kv_heads, dim, 16], V [kv_heads, 16, dim].
  std::unique_ptr<Halves> make_block(Side side, std::size_t dim, const HalfBits* rows) const {
    const std::size_t heads = spec_.shape.kv_heads;
    auto block = std::make_unique<Halves>(16 * heads * dim);
    for (std::size_t at = 0; at < block->size(); ++at) {
      const std::size_t token = at / (heads * dim);
      const std::size_t head = at / dim % heads;
      const std::size_t channel = at % dim;
      const std::size_t place = side == Side::kKey ? channel * 16 + token : token * dim + channel;
      (*block)[head * 16 * dim + place] = rows[at];
    }
    return block;
  }

  void seal(Side side, std::uint32_t dim, std::uint32_t bits, const Halves& rows, Side16& memory) {
    const AttentionShape& shape = spec_.shape;
    const TileShape record_shape = tile_shape(side, shape.tile_tokens, dim, bits, shape.version);
    const EncoderLevel level = shape.version == RecordVersion::kBytes ? EncoderLevel::kFast : EncoderLevel::kScaled;
    std::vector<std::byte> scratch(encode_scratch_bytes(record_shape, level) + 64);
    memory.records.resize(shape.kv_heads * record_bytes(record_shape));
    for (std::uint32_t head = 0; head < shape.kv_heads; ++head) {
      std::vector<std::unique_ptr<Halves>> blocks;
      std::vector<const HalfBits*> pointers;
      for (std::uint32_t t = 0; t < shape.tile_tokens; t += 16) {
        blocks.push_back(make_block(side, dim, &rows[std::size_t{t} * shape.kv_heads * dim]));
        pointers.push_back(blocks.back()->data() + std::size_t{head} * 16 * dim);
      }
      std::byte* aligned = scratch.data() + (64 - reinterpret_cast<std::uintptr_t>(scratch.data()) % 64) % 64;
      const Status status = encode_tile({side, dim, bits, level, nullptr, shape.version}, pointers, aligned,
                                        memory.records.data() + head * record_bytes(record_shape));
      if (status != Status::kOk) std::abort();
    }
  }

  TileSide spread_sealed(Side side, std::uint32_t dim, std::uint32_t bits, const std::vector<std::uint32_t>& cells,
                         const Side16& memory, std::vector<float>& dense) {
    const AttentionShape& shape = spec_.shape;
    const std::size_t size = record_bytes(tile_shape(side, shape.tile_tokens, dim, bits, shape.version));
    for (std::uint32_t head = 0; head < shape.kv_heads; ++head) {
      const auto rows = reference::decode_rows({side == Side::kKey ? reference::Axis::kKey : reference::Axis::kValue,
                                                shape.tile_tokens, dim, bits, shape.version},
                                               std::span(memory.records).subspan(head * size, size));
      for (std::size_t t = 0; t < cells.size(); ++t) {
        std::copy_n(&rows[t * dim], dim, &dense[(cells[t] * shape.kv_heads + head) * dim]);
      }
    }
    return {.records = memory.records.data(), .blocks = nullptr};
  }

  void make_queries() {
    q_.resize(std::size_t{spec_.queries} * spec_.shape.heads * spec_.shape.dim_k);
    for (float& value : q_) value = normal();
    for (std::uint32_t head = 0; head < spec_.shape.heads; ++head) sinks_.push_back(normal());
  }

  bool sees(std::uint32_t query, std::uint32_t cell, std::uint32_t rank) {
    switch (spec_.mask) {
      case MaskKind::kNone:
        return false;
      case MaskKind::kAll:
        return true;
      case MaskKind::kCausal:
        return rank < cells_ - spec_.queries + query + 1 || cells_ < spec_.queries;
      case MaskKind::kWindow:
        return rank >= query && rank < query + 77;
      case MaskKind::kRandom:
        return below(3) != 0;
      case MaskKind::kInterleaved:
        return rank / spec_.shape.tile_tokens % 4 == query % 4 && cell + 1 != 0;
    }
    return false;
  }

  void make_mask() {
    const float hidden = -std::numeric_limits<float>::infinity();
    dense_mask_.assign(std::size_t{spec_.queries} * cells_, hidden);
    mask_.assign(dense_mask_.size(), 0xFC00);
    for (std::uint32_t query = 0; query < spec_.queries; ++query) {
      for (std::uint32_t tile = 0; tile < spec_.tiles; ++tile) make_mask_of_tile(query, tile);
    }
  }

  void make_mask_of_tile(std::uint32_t query, std::uint32_t tile) {
    const std::vector<std::uint32_t>& cells = tile_cells_[tile];
    const bool has_bias = spec_.params.max_bias > 0.0f;
    bool any = false;
    bool all = !has_bias;
    for (std::uint32_t row = 0; row < cells.size(); ++row) {
      const std::uint32_t rank = tile * spec_.shape.tile_tokens + row;
      if (cells[row] == TileView::kNoCell) continue;
      const bool shown = sees(query, cells[row], rank);
      any |= shown;
      all &= shown;
      const float value = has_bias ? -float(cells_ - rank) / 8 : 0.0f;
      if (!shown) continue;
      const std::size_t at = std::size_t{query} * cells_ + cells[row];
      mask_[at] = float_to_half(value);
      dense_mask_[at] = half_to_float(mask_[at]);
    }
    visibility_.push_back(!any ? Visibility::kNone : all ? Visibility::kAll : Visibility::kSome);
    if (visibility_.back() == Visibility::kAll && query % 2 == 1)
      visibility_.back() = Visibility::kSome;  // same meaning
  }

  ProblemSpec spec_;
  std::mt19937 random_;
  std::uint32_t cells_;
  std::vector<float> k_, v_, original_k_, original_v_, q_, sinks_, dense_mask_;
  Halves mask_;
  std::vector<Side16> sides_;
  std::vector<std::vector<std::uint32_t>> tile_cells_;
  std::vector<TileView> views_;
  std::vector<Visibility> visibility_;
};

}  // namespace kvarn
