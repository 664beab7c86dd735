// A cache of two small layers behind the C interface, and steps of it.
#pragma once

#include <gtest/gtest.h>
#include <kvarn/kvarn.h>

#include <memory>
#include <vector>

#include "normals.hpp"

constexpr uint32_t kHeads = 4, kKvHeads = 2, kDim = 32;
constexpr kvarn_layer kLayers[2] = {{kHeads, kKvHeads, kDim, kDim}, {kHeads, kKvHeads, kDim, kDim}};

struct DestroyCache {
  void operator()(kvarn_cache* cache) const { kvarn_cache_destroy(cache); }
};
using Cache = std::unique_ptr<kvarn_cache, DestroyCache>;

inline kvarn_cache_config small_config() {
  kvarn_cache_config config = KVARN_CACHE_CONFIG_INIT;
  config.tile_tokens = 16;
  config.sink_tokens = 16;
  config.tail_tokens = 16;
  return config;
}

inline Cache cache_of(const kvarn_cache_config& config, uint32_t sequences, uint32_t tokens) {
  kvarn_cache_limits limits = KVARN_CACHE_LIMITS_INIT;
  limits.sequences = sequences;
  limits.tokens = tokens;
  kvarn_cache* cache = nullptr;
  EXPECT_EQ(kvarn_cache_create(&config, kLayers, 2, &limits, nullptr, &cache), KVARN_STATUS_OK);
  return Cache(cache);
}

// One step of `tokens` tokens for one sequence with rows from a seed; the outputs of both layers.
inline std::vector<float> step(kvarn_cache* cache, uint32_t sequence, uint32_t tokens, unsigned seed) {
  const kvarn_step_part part{sequence, tokens};
  EXPECT_EQ(kvarn_step_begin(cache, &part, 1), KVARN_STATUS_OK);
  std::vector<float> outputs;
  for (uint32_t layer = 0; layer < 2; ++layer) {
    const auto k = normals(tokens * kKvHeads * kDim, 10 * seed + layer);
    const auto v = normals(tokens * kKvHeads * kDim, 10 * seed + layer + 2);
    const auto q = normals(tokens * kHeads * kDim, 10 * seed + layer + 4);
    std::vector<float> out(q.size());
    const kvarn_const_rows k_rows{k.data(), KVARN_TYPE_F32, kKvHeads * kDim, kDim};
    const kvarn_const_rows v_rows{v.data(), KVARN_TYPE_F32, kKvHeads * kDim, kDim};
    const kvarn_const_rows q_rows{q.data(), KVARN_TYPE_F32, kHeads * kDim, kDim};
    const kvarn_rows out_rows{out.data(), KVARN_TYPE_F32, kHeads * kDim, kDim};
    const kvarn_query query = KVARN_QUERY_INIT;
    EXPECT_EQ(kvarn_step_append(cache, layer, &k_rows, &v_rows, nullptr), KVARN_STATUS_OK);
    EXPECT_EQ(kvarn_step_attend(cache, layer, &query, &q_rows, &out_rows, nullptr), KVARN_STATUS_OK);
    outputs.insert(outputs.end(), out.begin(), out.end());
  }
  EXPECT_EQ(kvarn_step_commit(cache), KVARN_STATUS_OK);
  return outputs;
}
