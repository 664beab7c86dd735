// Attention over tiles: one pass over sealed records and exact rows with one softmax, for decode and prompt alike.
// Reads what the caller points to; knows nothing of how a cache came by it, nor of engines.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/half.hpp"
#include "base/runner.hpp"
#include "format/tile_record.hpp"

namespace kvarn {

// Heads and dimensions of one layer. heads is a multiple of kv_heads; query head h reads KV head h / (heads /
// kv_heads).
struct AttentionShape {
  std::uint32_t heads;
  std::uint32_t kv_heads;
  std::uint32_t dim_k;        // multiple of 16
  std::uint32_t dim_v;        // multiple of 16
  std::uint32_t tile_tokens;  // multiple of 16, at most kMaxTileTokens
  std::uint32_t k_bits;       // code widths of sealed records
  std::uint32_t v_bits;
  RecordVersion version = RecordVersion::kHalves;  // of sealed records
};

// One side (K or V) of one tile, as attention reads it: sealed records or exact rows.
struct TileSide {
  const std::uint8_t* records = nullptr;  // sealed: kv_heads records one after the other; nullptr: exact
  // Exact: tile_tokens/16 pointers to blocks of 16 tokens (format/exact_block.hpp), K: [kv_heads, dim_k, 16],
  // V: [kv_heads, 16, dim_v]. A null block reads as zeros.
  const HalfBits* const* blocks = nullptr;
  std::uint32_t bits = 0;  // of the records' codes; 0: those of the shape
};

// One tile. cells[r] is the mask column of row r, kNoCell for a row that holds no token.
struct TileView {
  static constexpr std::uint32_t kNoCell = 0xFFFFFFFFu;
  TileSide k;
  TileSide v;
  std::uint32_t used_rows = 0;           // rows beyond are not read
  const std::uint32_t* cells = nullptr;  // [used_rows]
  bool has_gaps = true;                  // false: none of the cells is kNoCell
};

// What one query sees of one tile.
enum class Visibility : std::uint8_t {
  kNone = 0,  // nothing: the tile is skipped
  kAll = 1,   // every row below used_rows, all with mask value zero: the mask is not read
  kSome = 2,  // the mask is read row by row (-infinity: not seen; another value: added, times the head's slope)
};

// The queries of one stream against its tiles. Strides count elements.
struct AttentionJob {
  std::span<const TileView> tiles;
  std::uint32_t queries = 0;
  const Visibility* visibility = nullptr;  // [queries, tiles]
  const HalfBits* mask = nullptr;          // [queries, mask_stride]; may be null if no entry is kSome
  std::size_t mask_stride = 0;
  std::uint32_t mask_columns = TileView::kNoCell;  // cells at or beyond have no mask value and are not seen
  const float* q = nullptr;                        // q[query*q_query_stride + head*q_head_stride + channel]
  std::size_t q_query_stride = 0;
  std::size_t q_head_stride = 0;
  float* out = nullptr;  // out[query*out_query_stride + head*out_head_stride + channel], dim_v channels
  std::size_t out_query_stride = 0;
  std::size_t out_head_stride = 0;
};

// Score of query and key: s = scale * q.k; with soft_cap c > 0: s = c * tanh(s / c); then + slope(head) * mask value.
// slope is 1 without ALiBi (max_bias 0), else ggml's geometric sequence over heads. sinks[head] (may be null) is one
// more logit in the softmax that has no value. A query that sees nothing gets zeros.
struct AttentionParams {
  float scale = 1.0f;
  float soft_cap = 0.0f;
  float max_bias = 0.0f;
  const float* sinks = nullptr;
};

// Memory for one thread team, kept between calls; grows with workers and shape, never with the number of tiles beyond
// the partial results of one query (dim_v + 2 floats per head and 1,024 tokens).
class AttentionScratch {
 public:
  std::byte* reserve(std::size_t bytes);  // 64-byte aligned, content undefined
  std::size_t bytes() const { return storage_.size(); }

 private:
  std::vector<std::byte> storage_;
};

// Runs all jobs on the runner's team. The result does not depend on the number of workers.
void attend(const AttentionShape& shape, const AttentionParams& params, std::span<const AttentionJob> jobs,
            const Runner& runner, AttentionScratch& scratch);

}  // namespace kvarn
