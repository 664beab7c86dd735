#include "attention/sealed_tiles.hpp"

#include <algorithm>
#include <utility>

#include "kernels/record_fields.hpp"

namespace kvarn {
namespace {

// Few rows leave the processor waiting at the end of every step, so steps of several tiles follow each other; with many
// rows one tile has work enough, and several would only fill the cache.
constexpr std::size_t kBatchedRows = 32;

// Asks for the scales of a record, which are read before its codes.
void fetch_scales(const std::uint8_t* record, const TileShape& shape) {
  for (std::size_t byte = 0; byte < codes_offset(shape); byte += 64) __builtin_prefetch(record + byte);
}

}  // namespace

SealedTiles::SealedTiles(const AttentionShape& shape, std::size_t rows, std::size_t span_tiles, Carver& carver)
    : kernel_(kernels()),
      group_(shape.heads / shape.kv_heads),
      key_shape_{shape.dim_k, shape.tile_tokens, shape.k_bits, shape.version},
      value_shape_{shape.tile_tokens, shape.dim_v, shape.v_bits, shape.version},
      batch_tiles_(std::clamp<std::size_t>(kBatchedRows / rows, 1, span_tiles)) {
  rotated_queries_ = carver.take<float>(rows * shape.dim_k);
  batch_ = carver.take<Folded>(batch_tiles_);
  take_batch(rows, carver);
}

void SealedTiles::take_batch(std::size_t rows, Carver& carver) {
  const std::size_t tile_rows = std::max(key_shape_.rows, value_shape_.rows);
  const std::size_t tile_lanes = std::max(key_shape_.lanes, value_shape_.lanes);
  for (std::size_t i = 0; i < batch_tiles_; ++i) {
    Folded folded{};
    folded.row_scale = carver.take<float>(tile_rows);
    folded.row_zero = carver.take<float>(tile_rows);
    folded.lane_scale = carver.take<float>(tile_lanes);
    folded.digits = carver.take<std::int8_t>(2 * rows * tile_rows);
    folded.vectors = carver.take<FoldedVector>(rows);
    folded.dots = carver.take<DotVector>(2 * rows);
    if (batch_ != nullptr) batch_[i] = folded;
  }
}

void SealedTiles::begin(const float* queries, std::size_t rows, std::uint32_t kv_head) {
  queries_ = queries;
  rows_ = rows;
  kv_head_ = kv_head;
  is_rotated_ = false;
}

void SealedTiles::load(const SpanTile& tile, const TileSide& side, const TileShape& any, Folded& folded) {
  const TileShape shape = shape_of(side, any);
  folded.tile = &tile;
  folded.shape = shape;
  folded.record = record_of(side, any);
  read_fields(shape, folded.record, {folded.row_scale, folded.row_zero, folded.lane_scale});
}

// Only the rows of the active queries.
void SealedTiles::fold(const float* vectors, std::size_t stride, Folded& folded) {
  const TileShape& shape = folded.shape;
  const RowFold fold{folded.row_scale, folded.row_zero, shape.rows, shape.bits};
  std::size_t done = 0;
  for_each_run(*folded.tile, [&](std::size_t query, std::size_t count) {
    kernel_.fold_vectors(vectors + query * group_ * stride, stride, count * group_, fold,
                         folded.digits + 2 * done * shape.rows, folded.vectors + done);
    done += count * group_;
  });
}

// What one level of digits cannot say follows after all first levels.
void SealedTiles::list_dots(float* out, std::size_t out_stride, bool adds, Folded& folded) {
  const TileShape& shape = folded.shape;
  std::size_t row = 0;
  folded.dot_count = folded.tile->active_count * group_;
  for_each_run(*folded.tile, [&](std::size_t query, std::size_t count) {
    for (std::size_t i = 0; i < count * group_; ++i, ++row) {
      const FoldedVector& vector = folded.vectors[row];
      const std::int8_t* digits = folded.digits + 2 * row * shape.rows;
      float* to = out + (query * group_ + i) * out_stride;
      folded.dots[row] = {digits, to, vector.unit, vector.bias, adds};
      if (vector.levels == 1) continue;
      folded.dots[folded.dot_count++] = {digits + shape.rows, to, vector.unit / kSecondDigits, 0.0f, true};
    }
  });
}

void SealedTiles::fetch_ahead(std::span<const SpanTile> tiles) const {
  for (const SpanTile& tile : tiles) {
    if (tile.view->k.records != nullptr) fetch_scales(key_record(*tile.view), key_shape_);
  }
}

void SealedTiles::score(std::span<const SpanTile> tiles, float* scores, std::size_t stride) {
  for (std::size_t next = 0; next < tiles.size();) {
    std::size_t count = 0;
    for (; next < tiles.size() && count < batch_tiles_; ++next) {
      const SpanTile& tile = tiles[next];
      if (tile.view->k.records == nullptr) continue;
      if (!std::exchange(is_rotated_, true)) {
        std::copy_n(queries_, rows_ * key_shape_.rows, rotated_queries_);
        kernel_.rotate(rotated_queries_, rows_, key_shape_.rows);
      }
      Folded& folded = batch_[count++];
      load(tile, tile.view->k, key_shape_, folded);
      fold(rotated_queries_, key_shape_.rows, folded);
    }
    for (std::size_t i = 0; i < count; ++i) {
      Folded& folded = batch_[i];
      const SpanTile& tile = *folded.tile;
      list_dots(scores + tile.column, stride, false, folded);
      if (tile.view->v.records != nullptr) fetch_scales(value_record(*tile.view), value_shape_);
      const std::uint8_t* ahead = nullptr;
      if (i + 1 < count) {
        ahead = batch_[i + 1].record + codes_offset(key_shape_);
      } else if (tiles[0].view->v.records != nullptr) {
        ahead = value_record(*tiles[0].view) + codes_offset(value_shape_);
      }
      kernel_.dot_codes({folded.record + codes_offset(key_shape_), key_shape_.rows,
                         (tile.end_row + kLaneBlock - 1) / kLaneBlock * kLaneBlock, folded.shape.bits, ahead},
                        folded.dots, folded.dot_count, folded.lane_scale);
    }
  }
}

bool SealedTiles::add_values(std::span<const SpanTile> tiles, const float* weights, std::size_t stride, float* sums) {
  bool adds = false;
  for (std::size_t next = 0; next < tiles.size();) {
    std::size_t count = 0;
    for (; next < tiles.size() && count < batch_tiles_; ++next) {
      const SpanTile& tile = tiles[next];
      if (tile.view->v.records == nullptr) continue;
      Folded& folded = batch_[count++];
      load(tile, tile.view->v, value_shape_, folded);
      fold(weights + tile.column, stride, folded);
    }
    for (std::size_t i = 0; i < count; ++i) {
      Folded& folded = batch_[i];
      if (!std::exchange(adds, true)) std::fill_n(sums, rows_ * value_shape_.lanes, 0.0f);
      list_dots(sums, value_shape_.lanes, true, folded);
      const std::uint8_t* ahead = i + 1 < count ? batch_[i + 1].record + codes_offset(value_shape_) : nullptr;
      kernel_.dot_codes(
          {folded.record + codes_offset(value_shape_), value_shape_.rows, value_shape_.lanes, folded.shape.bits, ahead},
          folded.dots, folded.dot_count, folded.lane_scale);
    }
  }
  return adds;
}

}  // namespace kvarn
