// One KV head and a block of queries against a span of tiles: scores, online softmax, values.
// Sits on format and kernels; knows nothing of threads, of how work is divided, or of what else the job holds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "attention/attend.hpp"
#include "attention/carver.hpp"
#include "attention/exact_tiles.hpp"
#include "attention/sealed_tiles.hpp"
#include "attention/span_tile.hpp"
#include "kernels/kernel_table.hpp"

namespace kvarn {

// What a block of queries attends with. Row q * group + h stands for query q of the block and head h of the KV group.
struct QueryBlock {
  const AttentionJob* job;
  std::uint32_t kv_head;
  std::uint32_t first_query;
  std::uint32_t queries;
};

// The working memory of one worker and the pass itself. The result of a span depends on nothing but the queries and the
// span's tiles: not on the size of the block, not on what the memory held before.
class BlockPass {
 public:
  // slopes: [heads], factors of the mask; span_tiles: the most tiles of a span. Takes its memory from the carver (none:
  // only the size is counted).
  BlockPass(const AttentionShape& shape, const AttentionParams& params, const float* slopes, std::size_t max_queries,
            std::size_t span_tiles, Carver& carver);

  // Takes over the queries of a block.
  void begin(const QueryBlock& block);

  // Attends to tiles [first, last) of the job; then states() and values() hold the partial result of every row.
  void run_span(std::size_t first, std::size_t last);

  std::size_t rows() const { return block_.queries * group_; }
  SoftmaxState* states() { return states_; }
  float* values() { return values_; }  // [rows, dim_v]

  // Room for a running total of the block, [rows] and [rows, dim_v]; the pass itself does not touch it.
  SoftmaxState* total_states() { return total_states_; }
  float* total_values() { return total_values_; }

 private:
  std::span<const SpanTile> find_tiles(std::size_t first, std::size_t last);
  bool find_active(std::size_t index, std::uint32_t* active, SpanTile& tile);
  void read_masks(std::size_t index, SpanTile& tile);
  void read_mask(std::size_t index, const SpanTile& tile, std::uint32_t query, bool is_contiguous);
  void narrow(SpanTile& tile) const;
  void narrow_to_query(SpanTile& tile) const;
  void hide_rest(const SpanTile& tile);
  void finish_scores(const SpanTile& tile);

  const AttentionShape& shape_;
  const AttentionParams& params_;
  const KernelTable& kernel_;
  const float* slopes_;
  std::size_t group_;
  std::size_t stride_;  // columns of a span
  SealedTiles sealed_;
  ExactTiles exact_;
  QueryBlock block_{};

  std::uint32_t* active_ = nullptr;  // [span_tiles, max_queries]
  SpanTile* tiles_ = nullptr;        // [span_tiles]
  float* queries_ = nullptr;         // [rows, dim_k], times the score scale
  float* scores_ = nullptr;          // [rows, stride_], then the softmax weights
  HalfBits* masks_ = nullptr;        // [max_queries, stride_]
  float* mask_ = nullptr;            // [tile_tokens]
  SoftmaxState* states_ = nullptr;
  float* values_ = nullptr;  // [rows, dim_v]
  SoftmaxState* total_states_ = nullptr;
  float* total_values_ = nullptr;
};

}  // namespace kvarn
