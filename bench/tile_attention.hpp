// Our attention over the same rows: tiles in the cache's own memory, sealed or exact, without an engine around them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <span>
#include <vector>

#include "attention/attend.hpp"
#include "attention_problem.hpp"
#include "cache/cache_config.hpp"
#include "cache/row_store.hpp"
#include "cache/slab_pool.hpp"

namespace kvarn::bench {

class TileAttention {
 public:
  // Complete tiles are sealed if none of their rows is one of the newest `exact_rows`; with config.exact none is.
  // `copies` layers hold the same rows in different memory. The runner and what it points to must outlive this.
  // Throws UserError without memory.
  TileAttention(const AttentionProblem& problem, const CacheConfig& config, std::uint32_t exact_rows,
                std::uint32_t copies, const Runner& runner);

  // One pass over the next copy.
  void run();
  std::size_t read_bytes() const { return read_bytes_; }  // records and exact rows of one copy
  std::span<const float> out() const { return out_; }     // of the last pass, [queries, heads, dim]

 private:
  struct Layer {
    RowStore* k;
    RowStore* v;
    std::vector<TileView> tiles;
  };
  SlabPool& record_pool(std::size_t bytes);
  void fill_tile(std::uint32_t tile, bool is_sealed);
  void write_rows(RowStore& store, std::span<const HalfBits> values, std::uint32_t tile);
  void seal(Layer& layer, std::uint32_t tile);
  void look(std::uint32_t tile);

  const AttentionProblem& problem_;
  CacheConfig config_;
  AttentionShape shape_;
  Runner runner_;
  std::uint32_t tile_count_;
  SlabPool blocks_;
  std::map<std::size_t, SlabPool> record_pools_;
  std::deque<RowStore> stores_;
  std::vector<Layer> layers_;
  std::vector<std::uint32_t> cells_;
  std::vector<Visibility> visibility_;  // [queries, tiles]
  std::vector<float> out_;
  AttentionScratch scratch_;
  std::size_t read_bytes_ = 0;
  std::size_t next_ = 0;
};

}  // namespace kvarn::bench
