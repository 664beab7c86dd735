#include "cache/cache_size.hpp"

#include <algorithm>
#include <map>
#include <memory>

namespace kvarn {
namespace {

// What one sequence holds of one layer.
struct HeldTiles {
  std::uint64_t first = 0;   // tiles before this one are gone: a window has passed them
  std::uint64_t sealed = 0;  // of those from first_sealed on
  std::uint64_t first_sealed = 0;
  std::uint64_t full = 0;  // complete tiles, counted from the start of the sequence
  std::uint32_t rest = 0;  // rows of the tile behind them
};

std::uint64_t sealed_tiles(const CacheConfig& config, std::uint32_t layer, const CacheLoad& load,
                           std::uint64_t first_sealed) {
  const bool never = config.exact || config.k_baseline != BaselineFormat::kNone;
  const std::uint64_t rank =
      config.seals_own_rows ? load.tokens : load.tokens - std::min(load.tokens, load.batch_tokens);
  const std::uint64_t stagger = config.seals_own_rows ? 0 : layer % kLayerStagger;
  const std::uint64_t exact_tokens = config.tail_tokens + stagger;
  if (never || rank < exact_tokens) return 0;
  const std::uint64_t end = (rank - exact_tokens) / config.tile_tokens;
  return end - std::min(end, first_sealed);
}

HeldTiles held_tiles(const CacheConfig& config, const LayerSize& layer, const CacheLoad& load) {
  const std::uint64_t tile = config.tile_tokens;
  HeldTiles held;
  held.full = load.tokens / tile;
  held.rest = static_cast<std::uint32_t>(load.tokens % tile);
  held.first_sealed = (config.sink_tokens + tile - 1) / tile;
  const bool has_window = layer.window_tokens != 0;
  if (!has_window) held.sealed = sealed_tiles(config, layer.layer, load, held.first_sealed);
  if (has_window && load.tokens > std::max(layer.window_tokens, layer.window_cells)) {
    held.first = (load.tokens - layer.window_cells) / tile;
  }
  return held;
}

// Slots of each size, by size: of one cache.
using SlotCounts = std::map<std::size_t, std::uint64_t>;

struct PoolCounts {
  SlotCounts records;
  SlotCounts blocks;
};

void count_slots(const CacheConfig& config, const HeldTiles& held, Side side, const LayerSize& layer,
                 std::uint64_t sequences, PoolCounts& counts) {
  const std::uint32_t dim = side == Side::kKey ? layer.heads.dim_k : layer.heads.dim_v;
  const std::size_t head_bytes = record_bytes(config.record_shape(side, dim));
  const std::size_t block_bytes = head_block_values(dim) * layer.heads.kv_heads * sizeof(HalfBits);
  const std::uint64_t exact_tiles = held.full - held.first - held.sealed;
  const std::uint64_t blocks =
      exact_tiles * (config.tile_tokens / kBlockTokens) + (held.rest + kBlockTokens - 1) / kBlockTokens;
  counts.records[head_bytes * layer.heads.kv_heads] += held.sealed * sequences;
  counts.blocks[block_bytes] += blocks * sequences;
}

// Of a layer without a window: samples of tiles that are not sealed, and one history for each sealed tile that
// contributes.
std::uint64_t query_bytes(const CacheConfig& config, const HeldTiles& held, const LayerSize& layer) {
  if (!config.keeps_queries() || layer.heads.dim_k == 0 || layer.window_tokens != 0) return 0;
  const QueryShape shape = query_shape(config, layer.heads.kv_heads, layer.heads.heads, layer.heads.dim_k);
  const std::uint64_t sample_bytes = QuerySamples(shape).bytes();
  const std::uint64_t history_bytes = sizeof(QueryHistory) + QueryHistory::bytes_of(shape);
  const std::uint64_t tiles = held.full + (held.rest >= shape.step() ? 1 : 0);
  std::uint64_t total = 0;
  for (std::uint64_t tile = held.first; tile < tiles; ++tile) {
    if (!shape.contribution(tile * config.tile_tokens).is_one) continue;
    const bool is_sealed = tile >= held.first_sealed && tile - held.first_sealed < held.sealed;
    total += is_sealed ? history_bytes : sample_bytes;
  }
  return total;
}

void add_slots(const SlotCounts& counts, std::uint64_t& used, std::uint64_t& slack) {
  for (const auto& [slot_bytes, slots] : counts) {
    used += slot_bytes * slots;
    slack += SlabPool::taken_bytes(slot_bytes, slots) - slot_bytes * slots;
  }
}

// Layers that live in one cache: those with a sliding window, or those without.
void add_cache(const CacheConfig& config, std::span<const LayerSize> layers, bool windowed, const CacheLoad& load,
               CacheAccount& account) {
  PoolCounts counts;
  std::uint64_t cells = 0;
  std::uint64_t sealed = ~std::uint64_t{0};
  for (const LayerSize& layer : layers) {
    if ((layer.window_tokens != 0) != windowed) continue;
    const HeldTiles held = held_tiles(config, layer, load);
    count_slots(config, held, Side::kKey, layer, load.sequences, counts);
    count_slots(config, held, Side::kValue, layer, load.sequences, counts);
    account.moment_bytes += query_bytes(config, held, layer) * load.sequences;
    cells = load.tokens - held.first * config.tile_tokens;
    sealed = std::min(sealed, held.sealed);
    const std::uint64_t kept = windowed ? std::min<std::uint64_t>(load.tokens, layer.window_cells) : load.tokens;
    const std::uint64_t values = std::uint64_t{layer.heads.kv_heads} * (layer.heads.dim_k + layer.heads.dim_v);
    account.f16_bytes += values * sizeof(HalfBits) * kept * load.sequences;
  }
  if (cells == 0) return;
  add_slots(counts.records, account.record_bytes, account.slack_bytes);
  add_slots(counts.blocks, account.open_row_bytes, account.slack_bytes);
  account.cells_in_use += cells * load.sequences;
  account.sealed_tokens += sealed * config.tile_tokens * load.sequences;
  account.map_bytes += CellMap::bytes_of(cells, config.tile_tokens) * load.sequences;
}

}  // namespace

CacheAccount size_of_caches(const CacheConfig& config, std::span<const LayerSize> layers, const CacheLoad& load) {
  CacheAccount account;
  add_cache(config, layers, /*windowed=*/false, load, account);
  add_cache(config, layers, /*windowed=*/true, load, account);
  return account;
}

}  // namespace kvarn
