// Scores and values of sealed tiles, in rotated space: the row scales of a record are folded into the queries or the
// softmax weights, which become 8-bit digits and are multiplied with the codes as they are.
// Sits on format and kernels; knows one KV head, a block of queries and a span of tiles.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "attention/carver.hpp"
#include "attention/span_tile.hpp"
#include "format/tile_record.hpp"
#include "kernels/kernel_table.hpp"

namespace kvarn {

class SealedTiles {
 public:
  // rows: queries of a block times heads of a group; span_tiles: tiles of a span.
  SealedTiles(const AttentionShape& shape, std::size_t rows, std::size_t span_tiles, Carver& carver);

  // queries: [rows, dim_k], times the score scale, not rotated; read when the first sealed keys are met.
  void begin(const float* queries, std::size_t rows, std::uint32_t kv_head);

  // Asks for what score() reads first.
  void fetch_ahead(std::span<const SpanTile> tiles) const;

  // Scores of the tiles with sealed keys, to their columns of scores[rows, stride].
  void score(std::span<const SpanTile> tiles, float* scores, std::size_t stride);

  // Adds weights[rows, stride] times the values of the tiles with sealed values to sums[rows, dim_v], which stay
  // rotated; false if there are none. Weights of columns that are not computed are zero.
  bool add_values(std::span<const SpanTile> tiles, const float* weights, std::size_t stride, float* sums);

 private:
  // One tile of a batch: its scales and what is multiplied with its codes.
  struct Folded {
    const SpanTile* tile;
    TileShape shape;
    const std::uint8_t* record;
    float* row_scale;
    float* row_zero;
    float* lane_scale;
    std::int8_t* digits;    // [rows, 2, rows of the tile]
    FoldedVector* vectors;  // [rows], those of the active queries first
    DotVector* dots;        // [2 * rows]
    std::size_t dot_count;
  };

  void take_batch(std::size_t rows, Carver& carver);
  void load(const SpanTile& tile, const TileSide& side, const TileShape& any, Folded& folded);
  // vectors[row * stride]: all rows of the block.
  void fold(const float* vectors, std::size_t stride, Folded& folded);
  void list_dots(float* out, std::size_t out_stride, bool adds, Folded& folded);
  static TileShape shape_of(const TileSide& side, TileShape shape) {
    if (side.bits != 0) shape.bits = side.bits;
    return shape;
  }
  const std::uint8_t* key_record(const TileView& view) const { return record_of(view.k, key_shape_); }
  const std::uint8_t* value_record(const TileView& view) const { return record_of(view.v, value_shape_); }
  const std::uint8_t* record_of(const TileSide& side, const TileShape& shape) const {
    return side.records + kv_head_ * record_bytes(shape_of(side, shape));
  }

  const KernelTable& kernel_;
  std::size_t group_;
  TileShape key_shape_;  // bits are those of tiles that do not say their own
  TileShape value_shape_;
  std::size_t batch_tiles_;  // tiles whose vectors are folded before the first of them is multiplied
  std::uint32_t kv_head_ = 0;
  const float* queries_ = nullptr;
  std::size_t rows_ = 0;
  bool is_rotated_ = false;
  float* rotated_queries_ = nullptr;  // [rows, dim_k]
  Folded* batch_ = nullptr;           // [batch_tiles_]
};

}  // namespace kvarn
