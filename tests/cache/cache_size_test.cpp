#include "cache/cache_size.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "fake_engine.hpp"

namespace kvarn {
namespace {

std::vector<LayerSize> engine_layers(std::uint32_t window = 0, std::uint32_t window_cells = 0) {
  std::vector<LayerSize> layers;
  for (std::uint32_t layer = 0; layer < FakeEngine::kLayers; ++layer) {
    layers.push_back(
        {layer, {FakeEngine::kHeads, FakeEngine::kKvHeads, FakeEngine::kDim, FakeEngine::kDim}, window, window_cells});
  }
  return layers;
}

void expect_same(const CacheAccount& planned, const CacheAccount& real, const std::string& where) {
  EXPECT_EQ(planned.record_bytes, real.record_bytes) << where;
  EXPECT_EQ(planned.open_row_bytes, real.open_row_bytes) << where;
  EXPECT_EQ(planned.moment_bytes, real.moment_bytes) << where;
  EXPECT_EQ(planned.f16_bytes, real.f16_bytes) << where;
  EXPECT_EQ(planned.cells_in_use, real.cells_in_use) << where;
  EXPECT_EQ(planned.sealed_tokens, real.sealed_tokens) << where;
}

// Token by token, so that every length is seen: all parts are equal to the byte. Slack may differ by the pages around
// slots that were given back.
TEST(SizeOfCaches, SequenceThatIsDecoded_TakesWhatWasPlanned) {
  for (const char* preset : {"f16", "k8v8", "k4v4", "k3v2", "k4v3+bytes"}) {
    for (const auto& [tile, sink, tail] :
         {std::tuple{16u, 16u, 16u}, {16u, 0u, 40u}, {64u, 100u, 30u}, {128u, 128u, 128u}}) {
      const CacheConfig config = config_of(preset, tile, sink, tail);
      FakeEngine engine(config, 1024, 1);
      for (std::uint64_t tokens = 1; tokens <= 600; ++tokens) {
        ASSERT_TRUE(engine.append(0, 1, FakeEngine::Check::kOff));
        if (tokens % 7 != 0 && tokens % tile > 1) continue;
        const CacheAccount planned = size_of_caches(config, engine_layers(), {.sequences = 1, .tokens = tokens});
        expect_same(planned, engine.cache().account(),
                    std::string(preset) + " tile " + std::to_string(tile) + " tokens " + std::to_string(tokens));
        if (HasFailure()) return;
      }
    }
  }
}

TEST(SizeOfCaches, PromptAtWork_KeepsItsOwnMicroBatchExact) {
  const CacheConfig config = config_of("k4v4", 16, 16, 16);
  FakeEngine engine(config, 1024, 2);
  for (const std::uint32_t batch : {200u, 64u, 96u, 128u}) {
    ASSERT_TRUE(engine.append(0, batch, FakeEngine::Check::kOff));
    const CacheLoad load{.sequences = 1, .tokens = engine.length(0), .batch_tokens = batch};
    expect_same(size_of_caches(config, engine_layers(), load), engine.cache().account(), std::to_string(batch));
  }
}

TEST(SizeOfCaches, SequencesOfOneLength_TakeThatManyTimesAsMuch) {
  const CacheConfig config = config_of("k4v2", 32, 32, 32);
  FakeEngine engine(config, 1024, 3);
  for (int token = 0; token < 300; ++token) {
    ASSERT_TRUE(engine.decode({0, 1, 2}, {}, FakeEngine::Check::kOff));
  }
  expect_same(size_of_caches(config, engine_layers(), {.sequences = 3, .tokens = 300}), engine.cache().account(),
              "three");
}

CacheAccount account_of_3500_tokens(const CacheConfig& config, MemoryLimit* limit) {
  FakeEngine engine(config, 4096, 4, 1, limit);
  while (engine.length(0) < 3500)
    EXPECT_TRUE(engine.append(0, engine.length(0) < 3072 ? 512 : 1, FakeEngine::Check::kOff));
  return engine.cache().account();
}

// What the system gives in whole pages, and what the cell map takes, is no more than a little off. Without a limit to
// keep, pages of exact rows may go back later.
TEST(SizeOfCaches, SlackAndMaps_AreCloseToWhatIsTaken) {
  const CacheConfig config = config_of("k4v4", 128, 128, 128);
  MemoryLimit limit;
  limit.set(std::uint64_t{1} << 30);
  const CacheAccount planned = size_of_caches(config, engine_layers(), {.sequences = 1, .tokens = 3500});
  const CacheAccount real = account_of_3500_tokens(config, &limit);
  const auto taken = [](const CacheAccount& account) { return static_cast<double>(account.held_bytes()); };
  EXPECT_NEAR(taken(planned) / taken(real), 1.0, 0.03);
  EXPECT_NEAR(static_cast<double>(planned.map_bytes) / static_cast<double>(real.map_bytes), 1.0, 0.5);
  const CacheAccount unlimited = account_of_3500_tokens(config, nullptr);
  EXPECT_GE(unlimited.held_bytes(), real.held_bytes());
  EXPECT_LE(unlimited.held_bytes(), real.held_bytes() + SlabPool::kMostLooseBytes);
}

TEST(SizeOfCaches, NoTokens_TakeNothing) {
  const CacheAccount nothing = size_of_caches(CacheConfig{}, engine_layers(), {.sequences = 8, .tokens = 0});
  EXPECT_EQ(nothing.held_bytes(), 0u);
  EXPECT_EQ(nothing.f16_bytes, 0u);
}

TEST(SizeOfCaches, SlidingWindow_StopsGrowingAtItsCells) {
  const std::vector<LayerSize> layers = engine_layers(/*window=*/256, /*window_cells=*/512);
  const auto taken = [&](std::uint64_t tokens) {
    const CacheAccount account = size_of_caches(CacheConfig{}, layers, {.sequences = 1, .tokens = tokens});
    EXPECT_EQ(account.record_bytes + account.moment_bytes, 0u);
    return account.open_row_bytes;
  };
  const std::uint64_t row_bytes = 2 * FakeEngine::kRow * sizeof(HalfBits) * FakeEngine::kLayers;
  EXPECT_LE(taken(100'000), (512 + 128) * row_bytes);
  EXPECT_GE(taken(100'000), 512 * row_bytes);
  EXPECT_EQ(taken(300), (300 + 15) / 16 * 16 * row_bytes);
}

}  // namespace
}  // namespace kvarn
