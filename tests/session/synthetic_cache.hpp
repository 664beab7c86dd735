// A cache with a long sequence that nothing was computed for: records of random codes, rows of random halves, put there
// as a restore would. Its shape is a real model's; its content compresses as badly.
#pragma once

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "cache/kv_cache.hpp"
#include "session/session.hpp"

namespace kvarn {

struct SyntheticShape {
  std::uint32_t layers = 1;
  std::uint32_t kv_heads = 1;
  std::uint32_t dim = 64;
  std::uint32_t heads = 1;
};

class SyntheticCache {
 public:
  // All tiles but the first and the last two are sealed in all stores. The same seed gives the same tiles.
  SyntheticCache(const CacheConfig& config, const SyntheticShape& shape, std::uint32_t tiles, std::uint32_t seed)
      : cache_(config, 1, tiles * config.tile_tokens) {
    SequenceLayout layout;
    layout.tile_tokens = config.tile_tokens;
    for (std::uint32_t layer = 0; layer < shape.layers; ++layer) {
      for (const Side side : {Side::kKey, Side::kValue}) {
        const std::uint32_t row = shape.kv_heads * shape.dim;
        cache_.add_store(side, layer, row);
        layout.stores.push_back({layer, side, row, shape.dim, side == Side::kKey ? shape.heads : 0,
                                 side == Side::kKey ? config.k_bits : config.v_bits});
      }
    }
    for (std::uint32_t number = 0; number < tiles; ++number) {
      SequenceTile tile;
      tile.start_rank = std::uint64_t{number} * config.tile_tokens;
      tile.ranked = true;
      if (number > 0) tile.parent = number - 1, tile.parent_row = config.tile_tokens - 1;
      tile.state = is_sealed(number, tiles) ? TileState::kSealed : TileState::kOpen;
      for (std::uint32_t row = 0; row < config.tile_tokens; ++row) {
        tile.tokens.push_back(number * config.tile_tokens + row);
        tokens_.push_back({tile.tokens.back() * 7, static_cast<std::int32_t>(tile.tokens.back()), tile.tokens.back()});
      }
      layout.tiles.push_back(tile);
    }
    std::vector<std::uint32_t> cells;
    for (const SessionToken& token : tokens_) cells.push_back(token.cell);
    EXPECT_EQ(cache_.place_sequence(0, layout, cells), Status::kOk);
    for (std::uint32_t number = 0; number < tiles; ++number) {
      std::mt19937_64 random(std::uint64_t{seed} << 32 | number);
      for (std::size_t at = 0; at < layout.stores.size(); ++at) {
        fill(layout, number, static_cast<std::uint32_t>(at), random);
      }
    }
    EXPECT_EQ(cache_.finish_sequence(layout), Status::kOk);
  }

  KvCache& cache() { return cache_; }
  const std::vector<SessionToken>& tokens() const { return tokens_; }
  SessionPart part() { return {&cache_, 0, tokens_}; }

 private:
  static bool is_sealed(std::uint32_t number, std::uint32_t tiles) { return number > 0 && number + 2 < tiles; }

  // The history that this tile begins; empty: it shares that of the tile before it.
  std::vector<std::uint8_t> new_history(const SequenceTile& tile, const StoreShape& shape) const {
    if (shape.side != Side::kKey || tile.state == TileState::kOpen) return {};
    const QueryShape queries = query_shape(cache_.config(), shape.row_values / shape.dim, shape.query_heads, shape.dim);
    if (tile.start_rank > cache_.config().tile_tokens && !queries.contribution(tile.start_rank).is_one) return {};
    std::vector<std::uint8_t> bytes(QueryHistory::bytes_of(queries));
    const float weight = static_cast<float>(tile.start_rank);
    std::memcpy(bytes.data(), &weight, sizeof(weight));
    return bytes;
  }

  void fill(const SequenceLayout& layout, std::uint32_t number, std::uint32_t store, std::mt19937_64& random) {
    const CacheConfig& config = cache_.config();
    const SequenceTile& tile = layout.tiles[number];
    const StoreShape& shape = layout.stores[store];
    const TileShape record = config.record_shape(shape.side, shape.dim, shape.bits);
    const bool sealed = tile.state == TileState::kSealed;
    std::vector<std::uint8_t> bytes(sealed ? record_bytes(record) * (shape.row_values / shape.dim)
                                           : std::size_t{config.tile_tokens} * shape.row_values * 2);
    for (std::size_t at = 0; at + 8 <= bytes.size(); at += 8) {
      const std::uint64_t word = random() & 0xBFFFBFFFBFFFBFFFu;  // as halves: below 2 in magnitude
      std::memcpy(bytes.data() + at, &word, 8);
    }
    TileContent content;
    content.kind = sealed ? ContentKind::kRecords : ContentKind::kRows;
    content.bytes = bytes;
    const std::vector<std::uint8_t> history = new_history(tile, shape);
    content.history_bytes = history;
    if (history.empty() && sealed && number > 0) content.history = cache_.tile_history(layout, number - 1, store);
    EXPECT_EQ(cache_.fill_tile(layout, number, store, content), Status::kOk);
  }

  KvCache cache_;
  std::vector<SessionToken> tokens_;
};

}  // namespace kvarn
