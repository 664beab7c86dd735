// A compressed KV cache for whoever knows its sequences: by number, in order, without cells and without masks. Tile i
// of a sequence holds its tokens i*T to i*T+T-1, so sequences that begin alike share tiles, and a fork copies nothing.
// Beside KvCache, which serves engines that speak in cells and masks; knows nothing of either.
//
// What a sequence computes depends on its own tokens and steps alone, never on who shares its tiles: a tile that is
// sealed for one sequence and still in the exact tail of another is held in both forms until the last one has passed.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "attention/attend.hpp"
#include "base/allocator.hpp"
#include "base/runner.hpp"
#include "cache/cache_config.hpp"
#include "cache/row_store.hpp"
#include "cache/snapshot.hpp"
#include "cache/tile_sealing.hpp"

namespace kvarn {

using SequenceId = std::uint32_t;

struct SequenceLimits {
  std::uint32_t sequences = 1;               // they are numbered from 0
  std::uint32_t tokens = 0;                  // of one sequence, at most kMaxSequenceTokens
  std::uint64_t bytes = MemoryLimit::kNone;  // of rows, records and their slack
};
inline constexpr std::uint32_t kMaxSequences = 1u << 16;
inline constexpr std::uint32_t kMaxSequenceTokens = 1u << 30;
inline constexpr std::uint32_t kMaxCacheLayers = 4096;
inline constexpr std::uint32_t kMaxHeads = 1024;

// The tokens that a step adds to one sequence.
struct StepPart {
  SequenceId sequence;
  std::uint32_t tokens;
};

// Rows of tokens as a caller holds them: value (token, head, channel) at token * token_stride + head * head_stride +
// channel. Strides count values.
template <class Value>
struct StridedRows {
  Value* data = nullptr;
  std::size_t token_stride = 0;
  std::size_t head_stride = 0;
  Value* at(std::size_t token, std::size_t head) const { return data + token * token_stride + head * head_stride; }
};

// What queries see and how. A query sees its own token and those before it in its sequence.
struct QueryParams {
  float scale = 1.0f;
  float soft_cap = 0.0f;            // as in AttentionParams
  std::uint32_t window_tokens = 0;  // only the newest so many tokens, the query's own included; 0: all
  const float* sinks = nullptr;     // [heads], as in AttentionParams
};

// Where the bytes of one sequence are. What sequences share counts for each of them.
struct SequenceAccount {
  std::uint64_t tokens = 0;
  std::uint64_t sealed_tokens = 0;  // in tiles that are sealed in every layer
  std::uint64_t held_bytes = 0;     // records, rows and what is kept of queries; not records of somebody else
  std::uint64_t own_bytes = 0;      // of these, what no other sequence shares: dropping the sequence gives it back
  std::uint64_t f16_bytes = 0;      // the same tokens as half-precision rows
};

// Where the bytes of the whole cache are. What sequences share counts once.
struct SequencesAccount {
  std::uint64_t tokens = 0;         // of all sequences
  std::uint64_t stored_tokens = 0;  // rows of tokens in memory, shared ones once
  std::uint64_t record_bytes = 0;
  std::uint64_t row_bytes = 0;    // exact rows, in blocks of 16
  std::uint64_t slack_bytes = 0;  // taken from the system or the allocator, not in use
  std::uint64_t query_bytes = 0;  // samples of queries and their moments
  std::uint64_t list_bytes = 0;   // which tile is where
  std::uint64_t scratch_bytes = 0;
  std::uint64_t f16_bytes = 0;     // all sequences as half-precision rows, nothing shared
  std::uint64_t mapped_bytes = 0;  // records that lie in memory of somebody else; not in held_bytes()
  std::uint64_t held_bytes() const { return record_bytes + row_bytes + slack_bytes + query_bytes + list_bytes; }
};

// How far to go with making old tiles smaller.
struct ShrinkGoal {
  std::uint64_t bytes = 0;        // of rows, records and their slack
  std::uint32_t lowest_bits = 2;  // no tile gets fewer bits than this
};
inline constexpr std::uint32_t kLadder[] = {8, 4, 2};

// Not thread safe: one caller at a time; the caller's runner does the parallel work inside.
class SequenceCache final : public SnapshotSource, public SnapshotTarget {
 public:
  // kInvalidArgument: a configuration or a shape out of range, a baseline format, seals_own_rows. All memory for rows
  // and records comes from the allocator, in slabs of about 256 KiB; small lists come from the heap.
  static Result<std::unique_ptr<SequenceCache>> create(const CacheConfig& config, std::span<const HeadCounts> layers,
                                                       const SequenceLimits& limits, const Allocator& allocator = {});

  const CacheConfig& config() const override { return config_; }
  const SequenceLimits& limits() const { return limits_; }
  std::uint32_t layer_count() const { return static_cast<std::uint32_t>(layers_.size()); }
  const HeadCounts& layer(std::uint32_t layer) const { return layers_[layer].heads; }
  bool in_step() const { return !step_.empty(); }
  std::uint32_t step_tokens() const { return step_tokens_; }
  // Tokens of a sequence, those of a step at hand not included. The sequence must be in range.
  std::uint32_t length(SequenceId sequence) const { return sequences_[sequence].length; }

  // A step: begin, then for every layer append and attend, then commit. Tokens of a step are numbered from 0, part by
  // part. begin takes all memory that the rows need. Each sequence at most once.
  // kOutOfOrder: a step is at hand; kInvalidArgument: no parts, no tokens, a sequence out of range or named twice;
  // kFull: more tokens than a sequence may have; kOutOfMemory; kCorrupt: the step goes on inside a tile whose records
  // are of somebody else and damaged. Nothing has changed then.
  Status begin(std::span<const StepPart> parts);
  // Writes the rows of all tokens of the step, [step_tokens, kv_heads, dim], and seals what is due in this layer.
  // Floats are rounded to nearest even and saturate at +-65504. Writing them again replaces them. kOutOfOrder: no step
  // is at hand; kInvalidArgument: layer.
  template <class Value>
  Status append(std::uint32_t layer, const StridedRows<const Value>& k, const StridedRows<const Value>& v,
                const Runner& runner);
  // Attention of all tokens of the step: q [step_tokens, heads, dim_k], out [step_tokens, heads, dim_v].
  // kOutOfOrder: no step is at hand or the layer's rows were not appended; kInvalidArgument: layer; kCorrupt: records
  // of somebody else that are needed are damaged, and nothing was computed.
  Status attend(std::uint32_t layer, const QueryParams& params, const StridedRows<const float>& q,
                const StridedRows<float>& out, const Runner& runner);
  // The step's tokens belong to their sequences from now on. kOutOfOrder: no step, or a layer without rows.
  Status commit();
  // The step never was. What it sealed stays sealed. Does nothing without a step.
  void cancel();

  // All of these: kOutOfOrder during a step, kInvalidArgument for a sequence out of range or more tokens than there
  // are.
  //
  // Leaves the first `tokens` tokens. Rows that were exact stay exact; inside a sealed tile the rows that stay keep the
  // values of the record, and are encoded a second time once the tile is full again and due.
  Status truncate(SequenceId sequence, std::uint32_t tokens);
  // Makes `to`, which must be empty, begin with all tokens of `from`. Shares all bytes.
  Status fork(SequenceId from, SequenceId to);
  Status drop(SequenceId sequence) { return truncate(sequence, 0); }
  Status clear();

  // Makes old tiles of the chosen sequences smaller until rows, records and their slack take no more than goal.bytes:
  // first to 8 bits a code, then to 4, then to 2, and on each step the oldest tiles first, in the order of `chosen`.
  // Where rows stay exact by configuration, tiles behind the tail are sealed for it. A tile that a sequence shares
  // which is not chosen, one that is not sealed in all layers yet, and one whose records are of somebody else stays as
  // it is. The same calls on the same
  // sequences give the same bytes. Takes the memory of one layer's rows of a tile beyond the limit at a time. kFull:
  // that is not enough; kOutOfMemory: the system refuses. What was done by then stays. kOutOfOrder: during a step.
  Status shrink(std::span<const SequenceId> chosen, const ShrinkGoal& goal, const Runner& runner);

  // Copies rows [first, first + count) of one side of a layer, as half-precision values: what was written, or what the
  // record stands for. rows: [count, kv_heads, dim]. May be called during a step, for tokens before it. kCorrupt:
  // records of somebody else are damaged.
  Status read_rows(SequenceId sequence, std::uint32_t layer, Side side, std::uint32_t first, std::uint32_t count,
                   const StridedRows<HalfBits>& rows) const;

  // A sequence taken apart and put together (snapshot.hpp); the number of its cells is that of its tokens. It goes on
  // with the same bytes wherever it lands. A sequence that was cut inside a sealed tile carries the rows that are left
  // of it as values, which is how it would go on here too. A target must be empty, and lies as all sequences here do:
  // tile i holds the tokens from i*T on, those of the sink and behind the last one that is sealed are exact. No call of
  // these during a step.
  Result<SequenceLayout> sequence_layout(SequenceId sequence, std::span<const std::uint32_t> cells) override;
  TileContent tile_content(const SequenceLayout& layout, std::uint32_t tile, std::uint32_t store,
                           ContentBuffer& buffer) const override;
  Status place_sequence(SequenceId sequence, SequenceLayout& layout, std::span<const std::uint32_t> cells) override;
  Status fill_tile(const SequenceLayout& layout, std::uint32_t tile, std::uint32_t store,
                   const TileContent& content) override;
  std::shared_ptr<const QueryHistory> tile_history(const SequenceLayout& layout, std::uint32_t tile,
                                                   std::uint32_t store) const override;
  Status finish_sequence(const SequenceLayout& layout) override;
  void abandon_sequence(const SequenceLayout& layout, std::span<const std::uint32_t> cells) override;

  SequencesAccount account() const;
  // The sequence must be in range.
  SequenceAccount account(SequenceId sequence) const;

 private:
  struct Sequence {
    std::vector<TileId> tiles;
    std::uint32_t length = 0;
    // By layer: tiles from first_sealed_ to this one are sealed for this sequence. Tiles behind them, and those of the
    // sink, are exact.
    std::vector<std::uint32_t> sealed_end;
  };
  // Sequences that list a tile.
  struct TileUse {
    std::uint32_t sequences = 0;
    std::vector<std::uint32_t> exact;  // by layer: those that still read its rows; not counted in the sink
  };
  struct Layer {
    HeadCounts heads;
    RowStore* k;
    RowStore* v;
    bool appended = false;  // in the step at hand
  };
  // One sequence of the step at hand.
  struct Part {
    SequenceId sequence;
    std::uint32_t first;  // rank of its first token
    std::uint32_t tokens;
    // The last tile is replaced where its rows are not the sequence's alone, or are a record; until commit this
    // remembers how it was.
    bool replaces = false;
    TileId replaced = 0;
    std::vector<std::uint32_t> sealed_end;
  };

  SequenceCache(const CacheConfig& config, std::span<const HeadCounts> layers, const SequenceLimits& limits,
                const Allocator& allocator);
  SlabPool& pool(std::map<std::size_t, SlabPool>& pools, std::size_t slot_bytes);
  std::uint32_t tile_tokens() const { return config_.tile_tokens; }
  std::uint32_t tiles_of(std::uint32_t tokens) const { return (tokens + tile_tokens() - 1) / tile_tokens(); }
  bool is_sealed(const Sequence& sequence, std::uint32_t layer, std::uint32_t index) const {
    return index >= first_sealed_ && index < sequence.sealed_end[layer];
  }
  Status may_change(SequenceId sequence) const;

  TileId new_tile();
  void free_tile(TileId tile);
  // Takes one sequence's share of the tile at `index` of its list away.
  void release(TileId tile, std::uint32_t index, const std::vector<std::uint32_t>& sealed_end);
  // The sequence reads this layer of the tile from the record from now on.
  void leave_rows(TileId tile, std::uint32_t layer);

  bool writable(TileId tile) const;
  Status copy_rows(const Sequence& sequence, std::uint32_t index, TileId to);
  Status grow(Part& part);
  void shrink(const Part& part);

  bool may_lower(std::span<const SequenceId> chosen, std::uint32_t index, TileId tile) const;
  Status lower_tile(std::span<const SequenceId> chosen, std::uint32_t index, std::uint32_t bits, const Runner& runner,
                    TileId tile);
  Status lower_layer(std::uint32_t layer, TileId tile, TileId spare, std::uint32_t bits, const Runner& runner);
  Status decode_to(RowStore& store, TileId from, TileId to);

  bool is_due(std::uint32_t layer, std::uint32_t index, std::uint32_t rank) const;
  void seal_due(std::uint32_t layer, const Runner& runner);
  std::vector<SealJob> due_jobs(std::uint32_t layer);
  void mark_sealed(std::uint32_t layer);
  void find_history(const SealJob& job, const Sequence& sequence, std::uint32_t index);
  template <class Value>
  void write_rows(RowStore& store, const Part& part, std::size_t first_token, const StridedRows<const Value>& rows);
  void keep_queries(RowStore& keys, const StridedRows<const float>& q);
  std::vector<TileView> list_views(std::uint32_t layer, const Part& part, std::uint32_t first) const;
  // Looks at records of somebody else that a layer of the step at hand is the first to read.
  Status check_foreign(std::uint32_t layer, std::uint32_t window_tokens, const Runner& runner);
  Status read_tile(const RowStore& store, TileId tile, bool sealed, std::vector<HalfBits>& rows) const;

  SequenceTile describe_tile(const Sequence& sequence, std::uint32_t index) const;
  // By store of the layout the number of the own store that takes it; nothing if there is none that can, or not for
  // each.
  std::vector<std::uint32_t> stores_for(const SequenceLayout& layout) const;
  bool lies_in_order(const SequenceLayout& layout, std::size_t tokens) const;

  CacheConfig config_;
  SequenceLimits limits_;
  Allocator allocator_;
  MemoryLimit limit_;
  std::uint32_t first_sealed_;                    // the first tile behind the sink
  std::map<std::size_t, SlabPool> record_pools_;  // by slot size
  std::map<std::size_t, SlabPool> block_pools_;
  std::deque<RowStore> stores_;
  std::vector<Layer> layers_;
  std::vector<Sequence> sequences_;
  std::vector<TileUse> tiles_;
  std::vector<TileId> free_tiles_;
  std::vector<Part> step_;
  std::uint32_t step_tokens_ = 0;
  AttentionScratch attention_scratch_;
  AttentionScratch seal_scratch_;
};

}  // namespace kvarn
