// A model in miniature that drives a SequenceCache: every row and query of a token follows from the token, its position
// and the layer, so that the same text gives the same rows in any sequence of any cache.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "cache/kv_cache.hpp"
#include "cache/sequence_cache.hpp"
#include "named_config.hpp"
#include "reference/attention.hpp"

namespace kvarn {

using Text = std::vector<std::uint32_t>;

struct SequenceModel {
  std::uint32_t layers = 2;
  HeadCounts heads{8, 4, 32, 32};
  std::uint32_t window = 0;
  Runner runner{};

  std::uint32_t row_values(Side side) const {
    return heads.kv_heads * (side == Side::kKey ? heads.dim_k : heads.dim_v);
  }
  std::uint32_t query_values() const { return heads.heads * heads.dim_k; }
  std::uint32_t out_values() const { return heads.heads * heads.dim_v; }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(heads.dim_k)); }

  std::unique_ptr<SequenceCache> make_cache(const CacheConfig& config, const SequenceLimits& limits,
                                            const Allocator& allocator = {}) const {
    const std::vector<HeadCounts> shapes(layers, heads);
    auto made = SequenceCache::create(config, shapes, limits, allocator);
    EXPECT_TRUE(made.ok());
    return std::move(made.value());
  }

  // The stores of all layers, for an engine that speaks in cells.
  void add_stores(KvCache& cells) const {
    for (std::uint32_t layer = 0; layer < layers; ++layer) {
      for (const Side side : {Side::kKey, Side::kValue}) cells.add_store(side, layer, row_values(side));
    }
  }

  // kind 0: K, 1: V, 2: query.
  static std::vector<float> normals(std::uint32_t count, std::uint32_t token, std::uint32_t position,
                                    std::uint32_t layer, std::uint32_t kind) {
    std::minstd_rand random(token * 2654435761u + position * 40503u + layer * 977u + kind * 13u + 1u);
    random.discard(3);
    std::normal_distribution<float> normal;
    std::vector<float> values(count);
    for (float& value : values) value = normal(random);
    return values;
  }
  std::vector<HalfBits> row(Side side, std::uint32_t layer, std::uint32_t token, std::uint32_t position) const {
    const auto values = normals(row_values(side), token, position, layer, side == Side::kKey ? 0 : 1);
    std::vector<HalfBits> halves;
    for (const float value : values) halves.push_back(float_to_half(value));
    return halves;
  }

  // The rows of new tokens of several sequences, one after the other: [tokens, values].
  struct Growth {
    SequenceId sequence;
    Text before;  // the whole text so far
    Text added;
  };
  std::vector<HalfBits> rows(const std::vector<Growth>& growths, Side side, std::uint32_t layer) const {
    std::vector<HalfBits> all;
    for (const Growth& growth : growths) {
      for (std::size_t at = 0; at < growth.added.size(); ++at) {
        const auto one = row(side, layer, growth.added[at], static_cast<std::uint32_t>(growth.before.size() + at));
        all.insert(all.end(), one.begin(), one.end());
      }
    }
    return all;
  }
  std::vector<float> queries(const std::vector<Growth>& growths, std::uint32_t layer) const {
    std::vector<float> all;
    for (const Growth& growth : growths) {
      for (std::size_t at = 0; at < growth.added.size(); ++at) {
        const auto position = static_cast<std::uint32_t>(growth.before.size() + at);
        const auto one = normals(query_values(), growth.added[at], position, layer, 2);
        all.insert(all.end(), one.begin(), one.end());
      }
    }
    return all;
  }

  // All of a step but its end. Returns the attention outputs of all layers, [layers][tokens, heads, dim_v].
  std::vector<std::vector<float>> run_step(SequenceCache& cache, const std::vector<Growth>& growths) const {
    std::vector<StepPart> parts;
    for (const Growth& growth : growths) {
      parts.push_back({growth.sequence, static_cast<std::uint32_t>(growth.added.size())});
    }
    EXPECT_EQ(cache.begin(parts), Status::kOk);
    std::vector<std::vector<float>> outputs;
    for (std::uint32_t layer = 0; layer < layers; ++layer) {
      const auto k = rows(growths, Side::kKey, layer);
      const auto v = rows(growths, Side::kValue, layer);
      EXPECT_EQ(cache.append<HalfBits>(layer, {k.data(), row_values(Side::kKey), heads.dim_k},
                                       {v.data(), row_values(Side::kValue), heads.dim_v}, runner),
                Status::kOk);
      const auto q = queries(growths, layer);
      auto& out = outputs.emplace_back(std::size_t{cache.step_tokens()} * out_values(), -7.0f);
      QueryParams params;
      params.scale = scale();
      params.window_tokens = window;
      EXPECT_EQ(cache.attend(layer, params, {q.data(), query_values(), heads.dim_k},
                             {out.data(), out_values(), heads.dim_v}, runner),
                Status::kOk);
    }
    return outputs;
  }

  // A committed step that adds to one sequence whose text is given; the text grows.
  std::vector<std::vector<float>> extend(SequenceCache& cache, SequenceId sequence, Text& text,
                                         const Text& added) const {
    auto outputs = run_step(cache, {{sequence, text, added}});
    EXPECT_EQ(cache.commit(), Status::kOk);
    text.insert(text.end(), added.begin(), added.end());
    return outputs;
  }

  std::vector<HalfBits> read(const SequenceCache& cache, SequenceId sequence, std::uint32_t layer, Side side) const {
    const std::uint32_t values = row_values(side);
    std::vector<HalfBits> all(std::size_t{cache.length(sequence)} * values);
    EXPECT_EQ(cache.read_rows(sequence, layer, side, 0, cache.length(sequence),
                              {all.data(), values, side == Side::kKey ? heads.dim_k : heads.dim_v}),
              Status::kOk);
    return all;
  }

  // Attention of the newest queries over a sequence's rows as the cache reads them back, after the commit.
  std::vector<double> expected(const SequenceCache& cache, const Growth& growth, std::uint32_t layer) const {
    const auto floats = [](const std::vector<HalfBits>& halves) {
      std::vector<float> values;
      for (const HalfBits half : halves) values.push_back(half_to_float(half));
      return values;
    };
    const auto k = floats(read(cache, growth.sequence, layer, Side::kKey));
    const auto v = floats(read(cache, growth.sequence, layer, Side::kValue));
    const auto q = queries({growth}, layer);
    const auto queries = static_cast<std::uint32_t>(growth.added.size());
    const std::uint32_t keys = cache.length(growth.sequence);
    std::vector<float> mask(std::size_t{queries} * keys);
    for (std::uint32_t query = 0; query < queries; ++query) {
      const std::uint32_t rank = keys - queries + query;
      for (std::uint32_t key = 0; key < keys; ++key) {
        const bool seen = key <= rank && (window == 0 || key + window > rank);
        mask[std::size_t{query} * keys + key] = seen ? 0.0f : -INFINITY;
      }
    }
    const reference::DenseAttention dense{.heads = heads.heads,
                                          .kv_heads = heads.kv_heads,
                                          .dim_k = heads.dim_k,
                                          .dim_v = heads.dim_v,
                                          .queries = queries,
                                          .keys = keys,
                                          .q = q.data(),
                                          .k = k.data(),
                                          .v = v.data(),
                                          .mask = mask.data(),
                                          .sinks = nullptr,
                                          .scale = scale(),
                                          .soft_cap = 0.0,
                                          .max_bias = 0.0};
    std::vector<double> out(std::size_t{queries} * out_values());
    reference::attend(dense, out.data());
    return out;
  }
};

// Tiles so small that short texts have many.
inline constexpr std::uint32_t kTile = 16;
inline constexpr std::uint32_t kSink = 16;
inline constexpr std::uint32_t kTail = 24;

inline CacheConfig small_config(const char* preset = "k4v4") {
  CacheConfig config = named_config(preset);
  config.tile_tokens = kTile;
  config.sink_tokens = kSink;
  config.tail_tokens = kTail;
  return config;
}

inline Text text_of(std::uint32_t count, std::uint32_t seed) {
  std::mt19937 random(seed);
  Text text(count);
  for (std::uint32_t& token : text) token = random();
  return text;
}

// Rows read back as written, bit for bit, from token `from` on.
inline void expect_exact_rows(const SequenceModel& model, const SequenceCache& cache, SequenceId sequence,
                              const Text& text, std::uint32_t from) {
  for (std::uint32_t layer = 0; layer < model.layers; ++layer) {
    for (const Side side : {Side::kKey, Side::kValue}) {
      const auto rows = model.read(cache, sequence, layer, side);
      const std::uint32_t values = model.row_values(side);
      for (std::uint32_t rank = from; rank < text.size(); ++rank) {
        const auto written = model.row(side, layer, text[rank], rank);
        ASSERT_TRUE(std::equal(written.begin(), written.end(), rows.begin() + std::size_t{rank} * values))
            << "token " << rank << " layer " << layer;
      }
    }
  }
}

}  // namespace kvarn
