// What a cache at EncoderLevel::kBest knows of the queries of a sequence.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <random>
#include <vector>

#include "kept_bytes.hpp"

namespace kvarn {
namespace {

constexpr std::uint32_t kCells = 512;

CacheConfig best_config(std::uint32_t sink, std::uint32_t tail) {
  CacheConfig config = config_of("k4v4", 16, sink, tail);
  config.level = EncoderLevel::kBest;
  return config;
}

CacheConfig without_tail(std::uint32_t sink) {
  CacheConfig config = best_config(sink, 0);
  config.seals_own_rows = true;
  return config;
}

FakeEngine::TextOf one_text(std::uint32_t text) {
  return [text](int, std::int64_t) { return text; };
}

// Appends count tokens in micro-batches of `cut`, and then `singly` more one by one, so that the same tiles are sealed.
KeptBytes save_of_cut(const CacheConfig& config, std::uint32_t cut, std::uint32_t query_seed) {
  FakeEngine engine(config, kCells, 1);
  engine.set_text(one_text(7), query_seed);
  for (std::uint32_t done = 0; done < 150;) {
    const std::uint32_t count = std::min(cut, 150 - done);
    EXPECT_TRUE(engine.append(0, count, FakeEngine::Check::kOff));
    done += count;
  }
  append_singly(engine, 0, 20);
  EXPECT_GT(engine.cache().account().sealed_tokens, 110u);
  EXPECT_GT(engine.cache().account().moment_bytes, 0u);
  return kept_bytes(engine, 0, 0);
}

TEST(QueryLineage, MicroBatchesCutDifferently_LeaveTheSameBytes) {
  for (const CacheConfig& config : {best_config(16, 16), best_config(0, 0), without_tail(0), without_tail(32)}) {
    const KeptBytes one_by_one = save_of_cut(config, 1, 0);
    for (const std::uint32_t cut : {5u, 16u, 47u, 150u}) EXPECT_EQ(save_of_cut(config, cut, 0), one_by_one) << cut;
    EXPECT_NE(save_of_cut(config, 16, 1), one_by_one) << "other queries leave the same: nothing is compared";
  }
}

// Rows as attention reads them, of all cells of a sequence.
std::vector<std::vector<HalfBits>> read_rows(FakeEngine& engine, int sequence, Side side) {
  std::vector<std::vector<HalfBits>> rows;
  for (std::uint32_t layer = 0; layer < FakeEngine::kLayers; ++layer) {
    for (const std::uint32_t cell : engine.cells_of(sequence)) {
      rows.emplace_back(FakeEngine::kRow);
      engine.cache().read_row(engine.store(layer, side), 0, cell, rows.back().data());
    }
  }
  return rows;
}

TEST(QueryLineage, RecordsOfKeys_DependOnTheQueries) {
  std::vector<std::vector<std::vector<HalfBits>>> keys, values;
  for (const std::uint32_t query_seed : {0u, 1u}) {
    FakeEngine engine(best_config(16, 16), kCells, 1);
    engine.set_text(one_text(7), query_seed);
    append_singly(engine, 0, 100);
    keys.push_back(read_rows(engine, 0, Side::kKey));
    values.push_back(read_rows(engine, 0, Side::kValue));
  }
  EXPECT_NE(keys[0], keys[1]);
  EXPECT_EQ(values[0], values[1]);
}

TEST(QueryLineage, OtherLevels_KeepNoQueries) {
  CacheConfig config = best_config(16, 16);
  config.level = EncoderLevel::kScaled;
  FakeEngine engine(config, kCells, 1);
  ASSERT_TRUE(engine.append(0, 150));
  append_singly(engine, 0, 20);
  EXPECT_GT(engine.cache().account().sealed_tokens, 0u);
  EXPECT_EQ(engine.cache().account().moment_bytes, 0u);
}

KeptBytes fresh_save(const CacheConfig& config, FakeEngine::TextOf text_of, std::uint32_t tokens, std::uint32_t from) {
  FakeEngine engine(config, kCells, 1);
  engine.set_text(std::move(text_of));
  append_singly(engine, 0, tokens);
  return kept_bytes(engine, 0, from);
}

TEST(QueryLineage, SameRequestAgain_LeavesTheSameBytes) {
  const CacheConfig config = best_config(16, 16);
  const KeptBytes expected = fresh_save(config, one_text(1), 150, 0);
  FakeEngine engine(config, kCells, 1);
  for (const std::uint32_t text : {1u, 2u, 1u}) {
    engine.remove(0);
    engine.set_text(one_text(text));
    append_singly(engine, 0, 150);
    if (text == 1) {
      EXPECT_EQ(kept_bytes(engine, 0, 0), expected);
    }
  }
}

TEST(QueryLineage, TruncatedAndAppended_IsAsIfTheCutRowsHadNeverBeen) {
  const CacheConfig config = best_config(16, 32);
  for (const std::uint32_t kept : {3u, 12u, 16u, 20u, 33u}) {
    FakeEngine engine(config, kCells, 1);
    engine.set_text([&](int, std::int64_t position) { return position < kept ? 1u : 3u; });
    append_singly(engine, 0, 36);
    engine.roll_back(0, 36 - kept);
    engine.set_text(one_text(1));
    append_singly(engine, 0, 150 - kept);
    EXPECT_EQ(kept_bytes(engine, 0, 0), fresh_save(config, one_text(1), 150, 0)) << kept;
  }
}

TEST(QueryLineage, ForkAtTheEndOfATile_IsAsIfItHadAlwaysBeenAlone) {
  const CacheConfig config = best_config(16, 16);
  FakeEngine engine(config, kCells, 1);
  engine.set_text([](int sequence, std::int64_t position) { return position < 64 ? 1u : 2u + sequence; });
  append_singly(engine, 0, 64);
  engine.fork(0, 1);
  for (int token = 0; token < 90; ++token) ASSERT_TRUE(engine.decode({0, 1}, {}, FakeEngine::Check::kOff));
  for (const int sequence : {0, 1}) {
    const auto alone = [&](int, std::int64_t position) { return position < 64 ? 1u : 2u + sequence; };
    EXPECT_EQ(kept_bytes(engine, sequence, 0), fresh_save(config, alone, 154, 0)) << sequence;
  }
}

TEST(QueryLineage, ForkInTheMiddleOfATile_SeesNothingOfTheOtherBranch) {
  for (const std::uint32_t fork_at : {8u, 24u, 40u}) {
    std::vector<KeptBytes> branches;
    for (const std::uint32_t other_text : {2u, 3u}) {
      FakeEngine engine(best_config(0, 16), kCells, 1);
      engine.set_text([&](int sequence, std::int64_t position) {
        return position < fork_at ? 1u : sequence == 0 ? other_text : 4u;
      });
      append_singly(engine, 0, fork_at);
      engine.fork(0, 1);
      for (int token = 0; token < 100; ++token) ASSERT_TRUE(engine.decode({0, 1}, {}, FakeEngine::Check::kOff));
      branches.push_back(kept_bytes(engine, 1, fork_at));
    }
    EXPECT_EQ(branches[0], branches[1]) << fork_at;
  }
}

// What is saved of two sequences of the same rows, whose first queries differ until `forget` was done to their cache.
std::vector<KeptBytes> saves_of_two_pasts(const CacheConfig& config, std::uint32_t first_tokens,
                                          const std::function<void(FakeEngine&)>& forget) {
  std::vector<KeptBytes> saved;
  for (const std::uint32_t query_seed : {0u, 1u}) {
    FakeEngine engine(config, kCells, 1);
    engine.set_text(one_text(6), query_seed);
    append_singly(engine, 0, first_tokens);
    forget(engine);
    engine.set_text(one_text(6));
    append_singly(engine, 0, 100);
    EXPECT_GT(engine.cache().account().moment_bytes, 0u);
    saved.push_back(kept_bytes(engine, 0, 0));
  }
  return saved;
}

TEST(QueryLineage, SavedThenGoneOn_KeepsTheSamplesOfLaterRowsOnly) {
  const auto saved = saves_of_two_pasts(best_config(0, 16), 13, [](FakeEngine& engine) { (void)engine.save(0); });
  EXPECT_EQ(saved[0], saved[1]);
}

TEST(QueryLineage, RestoredWithoutHistory_StartsAnewAtTheNextTileThatContributes) {
  CacheConfig without = best_config(0, 0);
  without.level = EncoderLevel::kScaled;
  FakeEngine engine(without, kCells, 1);
  append_singly(engine, 0, 200);
  FakeEngine restored(best_config(0, 0), kCells, 2);
  ASSERT_TRUE(restored.restore(engine.save(0), 0));
  append_singly(restored, 0, 50);
  EXPECT_EQ(restored.cache().account().moment_bytes, 0u);
  append_singly(restored, 0, 60);  // tile 16 begins at 256
  EXPECT_GT(restored.cache().account().moment_bytes, 0u);
  EXPECT_EQ(restored.mismatches(), 0u);
}

TEST(QueryLineage, RowsWrittenAgainWithoutAMask_AreRowsWhoseQueriesWereNeverSeen) {
  const auto saved = saves_of_two_pasts(best_config(16, 16), 14, [](FakeEngine& engine) {
    for (std::uint32_t layer = 0; layer < FakeEngine::kLayers; ++layer) {
      for (std::uint32_t cell = 0; cell < 14; ++cell) {
        const HalfBits* row = engine.written(layer, Side::kKey, cell).data();
        ASSERT_EQ(engine.cache().write_row(engine.store(layer, Side::kKey), 0, cell, row), Status::kOk);
      }
    }
  });
  EXPECT_EQ(saved[0], saved[1]);
}

TEST(QueryLineage, EditedTiles_KeepTheirHistory) {
  FakeEngine engine(best_config(16, 16), kCells, 1);
  append_singly(engine, 0, 150);
  const CacheAccount before = engine.cache().account();
  ASSERT_EQ(engine.cache().edit_rows(
                engine.store(0, Side::kKey), 0, [](std::uint32_t) { return true; },
                [](HalfBits* rows, std::span<const std::uint32_t>) { rows[3] = 0x3C00; }),
            Status::kOk);
  EXPECT_EQ(engine.cache().account().moment_bytes, before.moment_bytes);
  EXPECT_EQ(engine.cache().account().record_bytes, before.record_bytes);
}

TEST(QueryLineage, Cleared_TakesNoMemory) {
  FakeEngine engine(best_config(16, 16), kCells, 1);
  append_singly(engine, 0, 310);
  EXPECT_GT(engine.cache().account().moment_bytes, 0u);
  engine.clear();
  EXPECT_EQ(engine.cache().account().moment_bytes, 0u);
}

// SmolLM2's shape: 9 query heads, 3 KV heads, D = 64, tiles of 128, first and last 128 tokens exact.
TEST(QueryLineage, AtFourThousandTokens_TakesAtMostTwoPercentOfTheCache) {
  constexpr std::uint32_t kTokens = 4096, kBatch = 256, kRow = 192, kWide = 9 * 64;
  CacheConfig config;
  config.level = EncoderLevel::kBest;
  KvCache cache(config, 1, kTokens);
  const StoreId k = cache.add_store(Side::kKey, 0, kRow), v = cache.add_store(Side::kValue, 0, kRow);
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> rows(kBatch * kRow), q(kBatch * kWide), out(q.size());
  for (float& value : rows) value = normal(random);
  for (float& value : q) value = normal(random);
  for (std::uint32_t start = 0; start < kTokens; start += kBatch) {
    const std::uint32_t columns = start + kBatch;
    std::vector<HalfBits> mask(std::size_t{kBatch} * columns, FakeEngine::kHidden);
    std::vector<std::uint32_t> cells(kBatch);
    for (std::uint32_t token = 0; token < kBatch; ++token) {
      cells[token] = start + token;
      std::fill_n(mask.begin() + std::size_t{token} * columns, start + token + 1, HalfBits{0});
    }
    BatchMask batch;
    batch.data = mask.data();
    batch.query_stride = batch.columns = columns;
    batch.slices = 1;
    batch.queries = kBatch;
    cache.observe(batch, cells);
    for (std::uint32_t token = 0; token < kBatch; ++token) {
      for (const StoreId store : {k, v}) {
        ASSERT_EQ(cache.write_row(store, 0, cells[token], rows.data() + std::size_t{token} * kRow), Status::kOk);
      }
    }
    const AttentionTensors tensors{q.data(), 0, kWide, 64, out.data(), 0, kWide, 64};
    ASSERT_EQ(cache.attend(k, v, {9, 3, 64, 64}, {.scale = 0.125f}, batch, tensors, Runner{}), Status::kOk);
  }
  const CacheAccount account = cache.account();
  const std::uint64_t total = account.record_bytes + account.open_row_bytes + account.moment_bytes;
  EXPECT_GT(account.moment_bytes, 0u);
  EXPECT_LE(account.moment_bytes * 50, total);
  RecordProperty("moment_bytes", static_cast<int>(account.moment_bytes));
  RecordProperty("cache_bytes", static_cast<int>(total));
}

}  // namespace
}  // namespace kvarn
