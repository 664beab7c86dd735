// The rows of one layer's K or V: per tile either exact half-precision rows in blocks of 16 tokens
// (format/exact_block.hpp), or one sealed record per KV head; and what is known of the queries that wrote them. Knows
// tiles by number; which token is where is the cell map's business.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "attention/attend.hpp"
#include "cache/cache_config.hpp"
#include "cache/query_history.hpp"
#include "cache/slab_pool.hpp"
#include "format/exact_block.hpp"

namespace kvarn {

using TileId = std::uint32_t;

// The queries that a layer of keys is to keep, `heads` of them reading its KV heads. How rarely tiles contribute keeps
// histories below 1/128 of the records that lie between them, with a V as wide as this K; narrow codes count as
// of 4 bits.
QueryShape query_shape(const CacheConfig& config, std::uint32_t kv_heads, std::uint32_t heads, std::uint32_t dim);

class RowStore {
 public:
  // row_values: KV heads x head dimension. The pools are shared with other stores and must outlive this one.
  RowStore(Side side, std::uint32_t layer, std::uint32_t row_values, const CacheConfig& config, SlabPool* blocks);

  Side side() const { return side_; }
  std::uint32_t layer() const { return layer_; }
  std::uint32_t row_values() const { return row_values_; }
  std::uint32_t dim() const { return dim_; }
  std::uint32_t bits() const { return side_ == Side::kKey ? config_.k_bits : config_.v_bits; }
  EncoderLevel level() const { return level(bits()); }
  EncoderLevel level(std::uint32_t bits) const { return config_.level.value_or(default_level(bits)); }
  BaselineFormat baseline() const { return side_ == Side::kKey ? config_.k_baseline : config_.v_baseline; }
  TileShape shape() const { return shape(bits()); }
  TileShape shape(std::uint32_t bits) const { return config_.record_shape(side_, dim_, bits); }
  std::size_t records_bytes() const { return records_bytes(bits()); }
  std::size_t records_bytes(std::uint32_t bits) const { return record_bytes(shape(bits)) * (row_values_ / dim_); }
  // The code width of a sealed tile: bits(), unless its record was added with another one.
  std::uint32_t bits_of(TileId tile) const { return tiles_[tile].bits == 0 ? bits() : tiles_[tile].bits; }

  // The head dimension, learned at the first attention; `records` hands out slots of records_bytes(). Blocks that were
  // written before, [16, row_values] until now, are laid out for attention.
  void set_heads(std::uint32_t dim, SlabPool* records);
  // Tiles may have records of this width too; `records` hands out slots of records_bytes(bits).
  void add_width(std::uint32_t bits, SlabPool* records) { width_pools_[bits] = records; }
  // Query heads in all, a multiple of the KV heads, that read this store of keys; not told: it keeps no queries.
  void set_query_heads(std::uint32_t heads);

  // Writes one exact row; floats are rounded to nearest even and saturate at +-65504. kOutOfMemory: there is no memory,
  // or the tile is sealed here.
  using Claim = SlabPool::Claim;
  Status write_row(TileId tile, std::uint32_t row, const HalfBits* values, Claim claim = Claim::kWithinLimit);
  Status write_row(TileId tile, std::uint32_t row, const float* values);
  // Copies one row as half-precision values: what was written, zeros if nothing was, decoded values of a sealed tile.
  void read_row(TileId tile, std::uint32_t row, HalfBits* values) const;
  // Copies rows [0, rows) of a tile to values[row * row_values()].
  void read_rows(TileId tile, std::uint32_t rows, HalfBits* values) const;

  // True if a tile may have records of this width.
  bool takes_width(std::uint32_t bits) const {
    return dim_ != 0 && (bits == this->bits() || (bits < width_pools_.size() && width_pools_[bits] != nullptr));
  }
  // True if these bytes are records of all KV heads of this store, every one of them valid.
  bool records_valid(std::span<const std::uint8_t> bytes) const { return records_valid(bytes, bits()); }
  bool records_valid(std::span<const std::uint8_t> bytes, std::uint32_t bits) const;
  // Decodes all heads of a tile's records to values[row * row_values()].
  void decode_records(const std::uint8_t* records, HalfBits* values) const;

  bool sealed(TileId tile) const { return tile < tiles_.size() && tiles_[tile].record != nullptr; }
  // False: nothing was ever written to this tile.
  bool holds(TileId tile) const { return sealed(tile) || (tile < tiles_.size() && tiles_[tile].blocks != nullptr); }
  // Sealed, rounded to the baseline format, or known to be impossible to encode: nothing is left to do for this tile.
  bool settled(TileId tile) const { return sealed(tile) || (tile < tiles_.size() && tiles_[tile].kept_exact); }
  // No record for this tile: its rows stay exact for good.
  void keep_exact(TileId tile);
  // Makes room for the records of a tile: a zeroed slot that does not belong to the tile yet, or nullptr without
  // memory. Beyond a limit by default: the tile's larger exact rows are freed for it.
  std::uint8_t* allocate_record(Claim claim = Claim::kBeyondLimit) { return allocate_record(bits(), claim); }
  std::uint8_t* allocate_record(std::uint32_t bits, Claim claim) {
    return reinterpret_cast<std::uint8_t*>(pool_of(bits).allocate(claim));
  }
  void discard_record(std::uint8_t* record) { discard_record(record, bits()); }
  void discard_record(std::uint8_t* record, std::uint32_t bits) { pool_of(bits).release(record); }
  // Bytes of scratch for encode_head(): a multiple of 64.
  std::size_t encode_scratch_bytes() const { return encode_scratch_bytes(bits()); }
  std::size_t encode_scratch_bytes(std::uint32_t bits) const;
  // Encodes one KV head of an exact tile to its place in `record`, with the tile's history in mind; safe to run for
  // several heads at once.
  Status encode_head(TileId tile, std::uint32_t head, std::byte* scratch, std::uint8_t* record) const {
    return encode_head(tile, head, bits(), scratch, record);
  }
  Status encode_head(TileId tile, std::uint32_t head, std::uint32_t bits, std::byte* scratch,
                     std::uint8_t* record) const;
  // Rounds the exact rows of a tile to the baseline format; nothing is left to do for it then. A block that is not
  // finite stays as it is. scratch: encode_scratch_bytes().
  void round_rows(TileId tile, std::byte* scratch);
  // Makes `record` the tile's content and frees its exact rows and its samples.
  void adopt_record(TileId tile, std::uint8_t* record) { adopt_record(tile, record, bits()); }
  void adopt_record(TileId tile, std::uint8_t* record, std::uint32_t bits);
  // The same, but rows and samples stay beside the record for those who still read them, until drop_exact_rows(). Takes
  // the place of a record that was there.
  void add_record(TileId tile, std::uint8_t* record, std::uint32_t bits);
  // Frees the exact rows and the samples of a tile that has a record; of any other tile nothing.
  void drop_exact_rows(TileId tile);
  // As adopt_record(), for records that lie in memory of somebody else (a mapped file): 64-byte aligned, never written
  // to, there as long as `owner` is. Their checksum and validity are unknown until foreign_is_intact().
  void adopt_foreign(TileId tile, const std::uint8_t* records, std::uint32_t bits, std::uint64_t checksum,
                     std::shared_ptr<const void> owner);
  bool is_foreign(TileId tile) const { return tile < tiles_.size() && tiles_[tile].foreign != nullptr; }
  bool has_unchecked() const { return unchecked_ > 0; }
  bool is_unchecked(TileId tile) const {
    return tile < tiles_.size() && tiles_[tile].foreign != nullptr && !tiles_[tile].foreign->checked;
  }
  // True if a tile's records of somebody else are the bytes they were and valid; safe to run for several tiles at once.
  bool foreign_is_intact(TileId tile) const;
  void mark_checked(TileId tile);
  // The checksum that adopt_foreign() was told; nothing for any other tile.
  std::optional<std::uint64_t> foreign_checksum(TileId tile) const;
  std::size_t foreign_bytes() const { return foreign_bytes_; }

  // Keeps the query that came with a row if that row is sampled and the tile not settled: q[head * head_stride +
  // channel], un-rotated. Writing the row again forgets it, so that a sample is always of the row as it is now.
  void keep_query(TileId tile, std::uint32_t row, const float* q, std::size_t head_stride);
  // The history up to the end of a tile, as set when it was encoded; nullptr: none, or not encoded yet.
  const std::shared_ptr<const QueryHistory>& history(TileId tile) const;
  void set_history(TileId tile, std::shared_ptr<const QueryHistory> history);
  // Goes on as if no query of the tile's rows had been seen.
  void forget_queries(TileId tile);
  // `rest` times what was before and the samples of the tile; `before` itself where there are none.
  std::shared_ptr<const QueryHistory> extend_history(std::shared_ptr<const QueryHistory> before, TileId tile,
                                                     float rest) const;
  // Sets the history from bytes that another cache's history spells; none if they spell none, or if this cache keeps no
  // queries. Shares what another tile has already. False if they spell none although this cache keeps queries.
  bool restore_history(TileId tile, std::span<const std::uint8_t> bytes);
  // The samples of a tile, as they travel through a state save; empty if there are none.
  std::vector<std::uint8_t> sample_bytes(TileId tile) const;
  // Takes samples from such bytes; nothing happens if they are none of this store, or if it keeps no queries. False if
  // they are none of this store although it keeps queries.
  bool restore_samples(TileId tile, std::span<const std::uint8_t> bytes);
  bool keeps_queries() const { return config_.keeps_queries(); }
  // Query heads that read this store; 0: not told.
  std::uint32_t query_heads() const { return dim_ == 0 ? 0 : row_values_ / dim_ * group_; }
  QueryShape query_shape() const {
    return {config_.tile_tokens, row_values_ / dim_, group_, dim_, query_period_, config_.version};
  }
  // Bytes of all samples and histories; those that tiles share count once.
  std::size_t query_bytes() const;

  TileSide view(TileId tile) const;
  // The exact rows of a tile, whether it has a record or not.
  TileSide exact_view(TileId tile) const;
  void read_exact_row(TileId tile, std::uint32_t row, HalfBits* values) const;
  // Replaces all rows of a tile; a sealed tile is sealed again from them, with the history it has, or becomes exact if
  // they cannot be encoded; a rounded one is rounded again. Samples and history stay: other keys, but the same who ask.
  // scratch: encode_scratch_bytes().
  Status replace_rows(TileId tile, std::uint32_t rows, const HalfBits* values, std::byte* scratch);
  // kOutOfMemory: `to` is then incomplete.
  Status copy_tile(TileId from, TileId to);
  // Makes the exact rows [0, rows) of a tile and its samples those of an empty tile too. Both share whole blocks until
  // reserve_rows() parts them.
  void share_rows(TileId from, TileId to, std::uint32_t rows);
  // Sees to it that rows [first, end) of a tile have memory of their own, so that writing them cannot fail: blocks
  // that other tiles share are copied. kOutOfMemory: some may have it already.
  Status reserve_rows(TileId tile, std::uint32_t first, std::uint32_t end);
  // Frees the blocks that hold none of the rows [0, rows).
  void trim_rows(TileId tile, std::uint32_t rows);
  // Bytes of the tile's exact rows; of them those that no other tile shares.
  struct RowBytes {
    std::size_t all = 0;
    std::size_t own = 0;
  };
  RowBytes exact_bytes(TileId tile) const;
  // Bytes of the samples and of the history of a tile; not of a history that is `counted` already.
  std::size_t query_bytes_of(TileId tile, const QueryHistory* counted) const;
  void drop(TileId tile);

 private:
  struct ForeignRecords {
    std::shared_ptr<const void> owner;
    std::uint64_t checksum = 0;
    bool checked = false;
  };
  struct TileData {
    std::unique_ptr<HalfBits*[]> blocks;  // tile_tokens/16 pointers to [kv_heads] head blocks, null: nothing written
    const std::uint8_t* record = nullptr;
    std::uint8_t bits = 0;                    // of the record; 0: bits()
    std::unique_ptr<ForeignRecords> foreign;  // not null: the record is not of the pool
    bool kept_exact = false;  // rows for good: they have no record (a NaN, a scale out of range), or are rounded
    std::unique_ptr<QuerySamples> samples;
    std::shared_ptr<const QueryHistory> history;
  };
  TileData& data(TileId tile);
  SlabPool& pool_of(std::uint32_t bits) { return bits == this->bits() ? *records_ : *width_pools_[bits]; }
  void decode(const std::uint8_t* records, std::uint32_t bits, HalfBits* values) const;
  void drop_record(TileData& content);
  // Frees record and exact rows.
  void drop_rows(TileData& content);
  void drop_blocks(TileData& content);
  // Gives up one tile's part in a block.
  void release_block(HalfBits* block);
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
  HalfBits* block_for_write(TileId tile, std::uint32_t row, Claim claim);
  void put_row(const HalfBits* values, std::uint32_t token, HalfBits* block) const;

  Side side_;
  std::uint32_t layer_;
  std::uint32_t row_values_;
  std::uint32_t dim_ = 0;
  std::uint32_t group_ = 0;  // query heads per KV head; 0: no queries are kept
  CacheConfig config_;
  std::uint32_t query_period_ = 1;
  SlabPool* blocks_;
  SlabPool* records_ = nullptr;
  std::array<SlabPool*, 9> width_pools_{};  // by code width, of those that bits() is not
  std::size_t foreign_bytes_ = 0;           // of records of somebody else
  std::size_t unchecked_ = 0;               // of them not checked yet
  std::vector<TileData> tiles_;
  std::unordered_map<const HalfBits*, std::uint32_t> sharers_;  // of blocks in several tiles: tiles beyond the first
};

}  // namespace kvarn
