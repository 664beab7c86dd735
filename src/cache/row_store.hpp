// The rows of one layer's K or V: per tile either exact half-precision rows in blocks of 16 tokens
// (format/exact_block.hpp), or one sealed record per KV head. Knows tiles by number; which token is where is the cell
// map's business.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "attention/attend.hpp"
#include "cache/cache_config.hpp"
#include "cache/slab_pool.hpp"
#include "format/exact_block.hpp"

namespace kvarn {

using TileId = std::uint32_t;

class RowStore {
 public:
  // row_values: KV heads x head dimension. The pools are shared with other stores and must outlive this one.
  RowStore(Side side, std::uint32_t layer, std::uint32_t row_values, const CacheConfig& config, SlabPool* blocks);

  Side side() const { return side_; }
  std::uint32_t layer() const { return layer_; }
  std::uint32_t row_values() const { return row_values_; }
  std::uint32_t dim() const { return dim_; }
  std::uint32_t bits() const { return side_ == Side::kKey ? config_.k_bits : config_.v_bits; }
  BaselineFormat baseline() const { return side_ == Side::kKey ? config_.k_baseline : config_.v_baseline; }
  TileShape shape() const { return tile_shape(side_, config_.tile_tokens, dim_, bits()); }
  std::size_t records_bytes() const { return record_bytes(shape()) * (row_values_ / dim_); }

  // The head dimension, learned at the first attention; `records` hands out slots of records_bytes(). Blocks that were
  // written before, [16, row_values] until now, are laid out for attention.
  void set_heads(std::uint32_t dim, SlabPool* records);

  // Writes one exact row; floats are rounded to nearest even and saturate at +-65504. kOutOfMemory: there is no memory,
  // or the tile is sealed here.
  Status write_row(TileId tile, std::uint32_t row, const HalfBits* values);
  Status write_row(TileId tile, std::uint32_t row, const float* values);
  // Copies one row as half-precision values: what was written, zeros if nothing was, decoded values of a sealed tile.
  void read_row(TileId tile, std::uint32_t row, HalfBits* values) const;
  // Copies rows [0, rows) of a tile to values[row * row_values()].
  void read_rows(TileId tile, std::uint32_t rows, HalfBits* values) const;

  // Decodes all heads of a tile's records to values[row * row_values()].
  void decode_records(const std::uint8_t* records, HalfBits* values) const;

  bool sealed(TileId tile) const { return tile < tiles_.size() && tiles_[tile].record != nullptr; }
  // Sealed, rounded to the baseline format, or known to be impossible to encode: nothing is left to do for this tile.
  bool settled(TileId tile) const { return sealed(tile) || (tile < tiles_.size() && tiles_[tile].kept_exact); }
  void keep_exact(TileId tile) { data(tile).kept_exact = true; }
  // Makes room for the records of a tile: a zeroed slot that does not belong to the tile yet, or nullptr without
  // memory.
  std::uint8_t* allocate_record() { return reinterpret_cast<std::uint8_t*>(records_->allocate()); }
  void discard_record(std::uint8_t* record) { records_->release(record); }
  // Encodes one KV head of an exact tile to its place in `record`; safe to run for several heads at once.
  Status encode_head(TileId tile, std::uint32_t head, std::byte* scratch, std::uint8_t* record) const;
  // Rounds the exact rows of a tile to the baseline format; nothing is left to do for it then. A block that is not
  // finite stays as it is. scratch: codec_scratch_bytes(shape()).
  void round_rows(TileId tile, std::byte* scratch);
  // Makes `record` the tile's content and frees its exact rows.
  void adopt_record(TileId tile, std::uint8_t* record);

  TileSide view(TileId tile) const;
  // Replaces all rows of a tile; a sealed tile is sealed again from them, or becomes exact if they cannot be encoded; a
  // rounded one is rounded again.
  Status replace_rows(TileId tile, std::uint32_t rows, const HalfBits* values, std::byte* scratch);
  void copy_tile(TileId from, TileId to);
  void drop(TileId tile);

 private:
  struct TileData {
    std::unique_ptr<HalfBits*[]> blocks;  // tile_tokens/16 pointers to [kv_heads] head blocks, null: nothing written
    std::uint8_t* record = nullptr;
    bool kept_exact = false;  // rows for good: they have no record (a NaN, a scale out of range), or are rounded
  };
  TileData& data(TileId tile);
  std::uint32_t block_count() const { return config_.tile_tokens / kBlockTokens; }
  std::size_t block_values() const { return std::size_t{kBlockTokens} * row_values_; }
  // Until the heads are known a row is one head of row_values channels, as in a V block.
  std::uint32_t head_values() const { return dim_ == 0 ? row_values_ : dim_; }
  HeadBlockLayout layout() const {
    return side_ == Side::kKey && dim_ != 0 ? key_block_layout(dim_) : value_block_layout(head_values());
  }
  // The block that a row lies in, nullptr if it was never written; the other one takes memory for it and is nullptr
  // without memory or in a sealed tile.
  const HalfBits* block_of(TileId tile, std::uint32_t row) const;
  HalfBits* block_for_write(TileId tile, std::uint32_t row);
  void put_row(const HalfBits* values, std::uint32_t token, HalfBits* block) const;

  Side side_;
  std::uint32_t layer_;
  std::uint32_t row_values_;
  std::uint32_t dim_ = 0;
  CacheConfig config_;
  SlabPool* blocks_;
  SlabPool* records_ = nullptr;
  std::vector<TileData> tiles_;
};

}  // namespace kvarn
