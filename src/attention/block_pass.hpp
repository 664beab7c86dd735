// One KV head and a block of queries against a span of tiles: scores, online softmax, values.
// Sits on format and kernels; knows nothing of threads, of how work is divided, or of what else the job holds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "attention/attend.hpp"
#include "format/exact_block.hpp"
#include "format/tile_record.hpp"
#include "kernels/kernel_table.hpp"

namespace kvarn {

// Hands out 64-byte aligned arrays from one piece of memory; with no memory it only counts.
class Carver {
 public:
  explicit Carver(std::byte* memory) : memory_(memory) {}

  template <class T>
  T* take(std::size_t count) {
    T* array = memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + used_);
    used_ += (count * sizeof(T) + 63) / 64 * 64;
    return array;
  }
  std::size_t used_bytes() const { return used_; }

 private:
  std::byte* memory_;
  std::size_t used_ = 0;
};

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
  // slopes: [heads], factors of the mask. Takes its memory from the carver (none: only the size is counted).
  BlockPass(const AttentionShape& shape, const AttentionParams& params, const float* slopes, std::size_t max_queries,
            Carver& carver);

  // Takes over the queries of a block.
  void begin(const QueryBlock& block);

  // Attends to tiles [first, last) of the job; then states() and values() hold the partial result of every row.
  void run_span(std::size_t first, std::size_t last);

  std::size_t rows() const { return block_.queries * group_; }
  SoftmaxState* states() { return states_; }
  float* values() { return plain_; }  // [rows, dim_v]

  // Room for a running total of the block, [rows] and [rows, dim_v]; the pass itself does not touch it.
  SoftmaxState* total_states() { return total_states_; }
  float* total_values() { return total_values_; }

 private:
  struct Tile;  // the tile at hand

  void take_memory(std::size_t max_queries, Carver& carver);
  const std::uint8_t* key_record(const TileView& view) const;
  const std::uint8_t* value_record(const TileView& view) const;
  void run_tile(const TileView& view, std::size_t index, const std::uint8_t* next_keys);
  void find_active(std::size_t index);
  void score_sealed(const Tile& tile);
  void score_exact(const Tile& tile);
  void read_masks(Tile& tile);
  void read_mask(const Tile& tile, std::size_t active, bool is_contiguous);
  void narrow(Tile& tile) const;
  void weigh(const Tile& tile);
  void add_sealed_values(const Tile& tile);
  void list_dots(std::size_t rows);
  void add_exact_values(const Tile& tile);
  void add_guarded_values(const Tile& tile);
  void add_exact_rows(const Tile& tile, std::size_t first_active, std::size_t count);
  void note_seen(const Tile& tile, std::size_t first_active, std::size_t count);
  bool all_values_finite(const Tile& tile) const;
  bool needs_separate_values(const Tile& tile) const;
  void find_head_blocks(const Tile& tile, const TileSide& side, std::uint32_t dim);
  void hide_unseen_values(const Tile& tile);
  void rescale(float* accumulators);
  TileScales load_scales(const TileShape& record_shape, const std::uint8_t* record);
  const HalfBits* value_row(std::size_t row) const;
  const HalfBits* mask_of(std::size_t active) const { return masks_ + active * shape_.tile_tokens; }
  std::size_t row_of(std::size_t active, std::size_t head) const { return active_[active] * group_ + head; }

  const AttentionShape& shape_;
  const AttentionParams& params_;
  const KernelTable& kernel_;
  const float* slopes_;
  std::size_t group_;
  QueryBlock block_{};
  bool queries_rotated_ = false;
  bool plain_used_ = false;
  bool rotated_used_ = false;
  bool zeros_ready_ = false;
  std::size_t active_count_ = 0;  // queries that see something of the tile at hand; rows of these are packed
  bool all_see_all_ = false;      // those that do see every row of it

  std::uint32_t* active_ = nullptr;  // [max_queries], query in the block
  float* queries_plain_ = nullptr;   // [rows, dim_k], times the score scale
  float* queries_rotated_data_ = nullptr;
  float* operand_ = nullptr;        // [packed rows, dim_k], queries of exact tiles that not all of the block see
  std::int8_t* digits_ = nullptr;   // [packed rows, 2, dim_k or tile_tokens], what sealed tiles are multiplied with
  FoldedVector* folded_ = nullptr;  // [packed rows]
  DotVector* dots_ = nullptr;       // [2 * packed rows]: the first digits of all, then the second of some
  std::size_t dot_count_ = 0;
  ScoreRow* score_rows_ = nullptr;           // [group]
  SoftmaxState** state_pointers_ = nullptr;  // [group]
  float* keep_ = nullptr;                    // [packed rows]
  float* scores_ = nullptr;                  // [packed rows, tile_tokens], then the softmax weights
  float** outputs_ = nullptr;                // [packed rows]
  SoftmaxState* states_ = nullptr;
  float* plain_ = nullptr;    // [rows, dim_v], sums over exact rows; at the end of a span the joint sums
  float* rotated_ = nullptr;  // [rows, dim_v], sums over sealed tiles, still rotated
  SoftmaxState* total_states_ = nullptr;
  float* total_values_ = nullptr;
  float* row_scale_ = nullptr;
  float* row_zero_ = nullptr;
  float* lane_scale_ = nullptr;
  float* mask_ = nullptr;                // [tile_tokens]
  HalfBits* masks_ = nullptr;            // [active queries, tile_tokens]
  std::uint8_t* seen_by_any_ = nullptr;  // [tile_tokens]
  std::uint8_t* seen_by_all_ = nullptr;
  const HalfBits** head_blocks_ = nullptr;  // [tile_tokens/16], those of the KV head and side at hand
  HalfBits* zeros_ = nullptr;               // a head block
  HalfBits* shown_values_ = nullptr;        // [tile_tokens, dim_v], copies of head blocks with hidden rows
  float* panel_ = nullptr;
};

}  // namespace kvarn
