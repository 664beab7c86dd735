// What the queries of a sequence have looked like: samples of one tile's queries, and their moments summed up along the
// tiles of a sequence. One layer at a time; knows nothing of cells, masks or of which tile follows which.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/half.hpp"
#include "format/tile_record.hpp"

namespace kvarn {

// What a tile adds to what is known of the queries of its sequence.
struct Contribution {
  bool is_one = false;  // false: its queries are not kept, and nothing changes
  float rest = 1.0f;    // what is left of the weight of all queries before it
};

// The queries of one layer.
struct QueryShape {
  static constexpr std::uint32_t kMaxSampled = 32;  // queries of one KV head that are kept of a tile, if heads allow

  std::uint32_t tile_tokens = 0;
  std::uint32_t kv_heads = 0;
  std::uint32_t group = 0;  // query heads that share a KV head
  std::uint32_t dim = 0;
  std::uint32_t period = 1;  // a power of two: of this many tiles of a long sequence one contributes
  RecordVersion version = RecordVersion::kHalves;  // histories have numbers of the size of a record's fields

  // Of the tile that starts at this rank of its sequence: with index = start_rank / tile_tokens, rounded down, tiles 0,
  // 1, 2, 4, ... period, 2 * period, 3 * period, ... contribute. Queries lose a tenth of their weight with every tile,
  // since those to come are most like the latest (docs/decisions/0010). A tile that starts between multiples of
  // tile_tokens (a fork) stands in for the tile it branched off.
  Contribution contribution(std::uint64_t start_rank) const {
    const std::uint64_t index = start_rank / tile_tokens;
    const bool is_early = index < period && (index & (index - 1)) == 0;
    if (index == 0) return {true, 1.0f};
    if (!is_early && index % period != 0) return {};
    std::uint64_t gap = index <= period ? index - index / 2 : period;
    Contribution contribution{true, 1.0f};
    for (; gap > 0; --gap) contribution.rest *= 0.9f;
    return contribution;
  }

  std::uint32_t heads() const { return kv_heads * group; }
  // Rows step-1, 2*step-1, ... of a tile are sampled, with all heads of their query. A power of two; the first token of
  // a sequence, whose queries are like no others, is left out wherever not all rows are sampled.
  std::uint32_t step() const {
    std::uint32_t step = 1;
    while (tile_tokens / step > 1 && tile_tokens / step * group > kMaxSampled) step *= 2;
    return step;
  }
  std::uint32_t samples() const { return tile_tokens / step(); }  // 1 to kMaxSampled
  bool is_sampled(std::uint32_t row) const { return row % step() == step() - 1; }
  std::uint32_t sample_of(std::uint32_t row) const { return row / step(); }
  // The moments of one KV head: squares [dim], then sums [group, dim] (codec/query_moments.hpp).
  std::size_t moment_values() const { return std::size_t{1 + group} * dim; }
};

// The sampled queries of one tile, in 8 bits a channel and one unit a query and head. A sample is there or not.
class QuerySamples {
 public:
  explicit QuerySamples(const QueryShape& shape);

  // Keeps a query, q[head * head_stride + channel], in the place of what was there. One that half precision cannot hold
  // (a NaN, beyond 65504) is not kept, and what was there is forgotten.
  void keep(std::uint32_t sample, const float* q, std::size_t head_stride);
  void forget(std::uint32_t sample) { present_ &= ~(std::uint64_t{1} << sample); }
  std::uint32_t count() const { return static_cast<std::uint32_t>(std::popcount(present_)); }

  // Adds the moments of the queries of one KV head's group to moments[moment_values()].
  void add_moments(std::uint32_t kv_head, float* moments) const;
  std::size_t bytes() const;

  // All samples in a form of their own for a state save, and back; false, and nothing changes, if these bytes are none
  // of this shape.
  std::vector<std::uint8_t> pack() const;
  bool unpack(std::span<const std::uint8_t> bytes);

 private:
  QueryShape shape_;
  std::uint64_t present_ = 0;       // bit s: sample s is there
  std::vector<std::int8_t> codes_;  // [samples, heads, dim]
  std::vector<HalfBits> units_;     // [samples, heads]: value = code * unit
};

// The moments of a sequence's queries up to the end of a tile, for all KV heads of a layer. Never changes: tiles,
// branches and copies share it. With one exponent for each array of squares or sums, in half precision or, beside
// records whose fields are bytes, in 8 bits a number: a square to within a sixteenth of itself, a sum to within a 128th
// of the largest one.
class QueryHistory {
 public:
  // `rest` times what was before (nullptr: nothing), and the samples of one more tile.
  QueryHistory(const QueryShape& shape, const QueryHistory* before, float rest, const QuerySamples& samples);
  // The history that bytes() of another one spells; nullptr if it is not one of this shape.
  static std::shared_ptr<const QueryHistory> parse(const QueryShape& shape, std::span<const std::uint8_t> bytes);
  static std::size_t bytes_of(const QueryShape& shape);

  float weight() const;  // sum of the weights of one head's queries
  // Writes the moments of one KV head to moments[moment_values()]: no channel varies less than not at all.
  void read(const QueryShape& shape, std::uint32_t kv_head, float* moments) const;
  std::span<const std::uint8_t> bytes() const { return bytes_; }
  bool equals(const QueryHistory& other) const { return bytes_ == other.bytes_; }

 private:
  explicit QueryHistory(std::vector<std::uint8_t> bytes) : bytes_(std::move(bytes)) {}

  // Weight as a float; then for each KV head its 1 + group arrays: exponent of 16 bits, dim numbers.
  std::vector<std::uint8_t> bytes_;
};

}  // namespace kvarn
