// Scores and values of exact rows, as they are. Rows that a query does not see never touch its sums, whatever they
// hold. Sits on format and kernels; knows one KV head, a block of queries and a span of tiles.
#pragma once

#include <cstddef>
#include <cstdint>

#include "attention/carver.hpp"
#include "attention/span_tile.hpp"
#include "kernels/kernel_table.hpp"

namespace kvarn {

class ExactTiles {
 public:
  // rows: queries of a block times heads of a group.
  ExactTiles(const AttentionShape& shape, std::size_t rows, Carver& carver);

  // queries: [rows, dim_k], times the score scale.
  void begin(const float* queries, std::uint32_t kv_head);

  // Scores of a tile with exact keys, to its columns of scores[rows, stride].
  void score(const SpanTile& tile, float* scores, std::size_t stride);

  // Adds weights[rows, stride] times the values of a tile with exact values to sums[rows, dim_v]. masks[queries,
  // stride] says what active queries see, if the tile has masks.
  void add_values(const SpanTile& tile, const float* weights, const HalfBits* masks, std::size_t stride, float* sums);

 private:
  void find_head_blocks(const SpanTile& tile, const TileSide& side, std::uint32_t dim, const HalfBits** found);
  bool all_values_finite(const SpanTile& tile) const;
  void add_guarded_values(const SpanTile& tile, const float* weights, const HalfBits* masks, std::size_t stride,
                          float* sums);
  void note_seen(const SpanTile& tile, const HalfBits* masks, std::size_t stride);
  bool needs_separate_values(const SpanTile& tile) const;
  void hide_unseen_values(const SpanTile& tile);
  void add_rows(const SpanTile& tile, const float* weights, std::size_t stride, float* sums);
  const HalfBits* value_row(std::size_t row) const;

  const AttentionShape& shape_;
  const KernelTable& kernel_;
  std::size_t group_;
  std::uint32_t kv_head_ = 0;
  const float* queries_ = nullptr;
  bool zeros_ready_ = false;
  float** outputs_ = nullptr;            // [rows]
  std::uint8_t* seen_by_any_ = nullptr;  // [tile_tokens]
  std::uint8_t* seen_by_all_ = nullptr;
  const HalfBits** head_blocks_ = nullptr;   // [tile_tokens/16], those of the KV head and side at hand
  const HalfBits** value_blocks_ = nullptr;  // the same of the values that follow keys
  HalfBits* zeros_ = nullptr;                // a head block
  HalfBits* shown_values_ = nullptr;         // [tile_tokens, dim_v], copies of head blocks with hidden rows
  float* panel_ = nullptr;
};

}  // namespace kvarn
