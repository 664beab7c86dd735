// What a cache will take before there is one: the arithmetic of its own parts (record sizes, seal rule, blocks, slabs,
// what is kept of queries) for sequences that only grow. Knows no engine; a KvCache filled likewise accounts the same.
#pragma once

#include <cstdint>
#include <span>

#include "cache/cache_config.hpp"
#include "cache/kv_cache.hpp"

namespace kvarn {

// One layer's K and V.
struct LayerSize {
  std::uint32_t layer = 0;  // its number as told to KvCache::add_store: layers take turns at sealing
  HeadCounts heads{};
  // 0: a token sees all of its sequence. Otherwise a sliding window: the engine keeps the rows of at most window_cells
  // tokens of a sequence. All layers with a window share one cache, all without another one.
  std::uint32_t window_tokens = 0;
  std::uint32_t window_cells = 0;
};

// What a cache holds: sequences that do not share tokens, all of one length.
struct CacheLoad {
  std::uint64_t sequences = 1;
  std::uint64_t tokens = 0;        // of each
  std::uint64_t batch_tokens = 1;  // of each, the newest: those of the micro-batch at work, not sealed yet
};

// Memory of caches of these layers under a load. scratch_bytes is left at 0: it does not grow with the load.
CacheAccount size_of_caches(const CacheConfig& config, std::span<const LayerSize> layers, const CacheLoad& load);

}  // namespace kvarn
