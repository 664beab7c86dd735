#include "cache/sequence_cache.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <thread>

#include "cache/kv_cache.hpp"
#include "sequence_model.hpp"

namespace kvarn {
namespace {

// One after the other, as in generation.
std::vector<std::vector<float>> extend_singly(const SequenceModel& model, SequenceCache& cache, SequenceId sequence,
                                              Text& text, const Text& added) {
  std::vector<std::vector<float>> outputs;
  for (const std::uint32_t token : added) {
    for (auto& out : model.extend(cache, sequence, text, {token})) outputs.push_back(std::move(out));
  }
  return outputs;
}

// Rows read back and what the next token sees, of one sequence.
struct Content {
  std::vector<std::vector<HalfBits>> rows;
  std::vector<std::vector<float>> outputs;
  friend bool operator==(const Content&, const Content&) = default;
};

Content content_of(const SequenceModel& model, SequenceCache& cache, SequenceId sequence, const Text& text) {
  Content content;
  for (std::uint32_t layer = 0; layer < model.layers; ++layer) {
    for (const Side side : {Side::kKey, Side::kValue}) content.rows.push_back(model.read(cache, sequence, layer, side));
  }
  content.outputs = model.run_step(cache, {{sequence, text, {99u}}});
  cache.cancel();
  return content;
}

TEST(SequenceCache, LongText_OldTilesAreSealed_SinkAndTailStayExact) {
  const SequenceModel model;
  const auto cache = model.make_cache(small_config(), {1, 1000});
  Text text;
  extend_singly(model, *cache, 0, text, text_of(200, 1));
  const SequenceAccount account = cache->account(0);
  EXPECT_EQ(account.tokens, 200u);
  EXPECT_EQ(account.sealed_tokens, 144u);  // (199 - 24 - 1) / 16 = 10 tiles, without that of the sink
  expect_exact_rows(model, *cache, 0, text, 200 - kTail);
  std::vector<HalfBits> row(model.row_values(Side::kKey));
  ASSERT_EQ(cache->read_rows(0, 0, Side::kKey, 0, 1, {row.data(), 0, 32}), Status::kOk);
  EXPECT_EQ(row, model.row(Side::kKey, 0, text[0], 0));
  ASSERT_EQ(cache->read_rows(0, 0, Side::kKey, 40, 1, {row.data(), 0, 32}), Status::kOk);
  EXPECT_NE(row, model.row(Side::kKey, 0, text[40], 40));
}

TEST(SequenceCache, SameText_SameRowsAndOutputsAsTheCacheOfCellsAndMasks) {
  const SequenceModel model;
  const CacheConfig config = small_config();
  const auto cache = model.make_cache(config, {1, 256});
  KvCache cells(config, 1, 256);
  model.add_stores(cells);
  Text text;
  for (const std::uint32_t count : {40u, 1u, 1u, 30u, 64u, 1u, 1u, 50u, 1u}) {
    const SequenceModel::Growth growth{0, text, text_of(count, count)};
    const auto first = static_cast<std::uint32_t>(text.size());
    std::vector<HalfBits> mask(std::size_t{count} * 256, HalfBits{0xFC00});
    std::vector<std::uint32_t> places;
    for (std::uint32_t query = 0; query < count; ++query) {
      std::fill_n(mask.begin() + std::size_t{query} * 256, first + query + 1, HalfBits{0});
      places.push_back(first + query);
    }
    const BatchMask batch{mask.data(), mask.size(), 256, 0, 1, count, 256};
    const auto outputs = model.extend(*cache, 0, text, growth.added);
    for (std::uint32_t layer = 0; layer < model.layers; ++layer) {
      const StoreId k = 2 * layer;
      ASSERT_EQ(cells.observe(batch, places), Status::kOk);
      for (std::uint32_t at = 0; at < count; ++at) {
        const auto k_row = model.row(Side::kKey, layer, growth.added[at], first + at);
        const auto v_row = model.row(Side::kValue, layer, growth.added[at], first + at);
        ASSERT_EQ(cells.write_row(k, 0, first + at, k_row.data()), Status::kOk);
        ASSERT_EQ(cells.write_row(k + 1, 0, first + at, v_row.data()), Status::kOk);
      }
      const auto q = model.queries({growth}, layer);
      std::vector<float> out(outputs[layer].size());
      const AttentionTensors tensors{q.data(), 0, model.query_values(), 32, out.data(), 0, model.out_values(), 32};
      ASSERT_EQ(cells.attend(k, k + 1, model.heads, {model.scale()}, batch, tensors, {}), Status::kOk);
      EXPECT_EQ(out, outputs[layer]);
      const auto rows = model.read(*cache, 0, layer, Side::kKey);
      std::vector<HalfBits> row(model.row_values(Side::kKey));
      for (std::uint32_t cell = 0; cell < text.size(); ++cell) {
        cells.read_row(k, 0, cell, row.data());
        ASSERT_TRUE(std::equal(row.begin(), row.end(), rows.begin() + std::size_t{cell} * row.size())) << cell;
      }
    }
  }
  EXPECT_GT(cache->account(0).sealed_tokens, 60u);
}

TEST(SequenceCache, Siblings_ChangeNothingOfWhatASequenceComputes) {
  const SequenceModel model;
  const auto alone = model.make_cache(small_config(), {1, 1000});
  const auto shared = model.make_cache(small_config(), {3, 1000});
  Text text;
  extend_singly(model, *alone, 0, text, text_of(90, 1));
  text.clear();
  extend_singly(model, *shared, 0, text, text_of(90, 1));
  ASSERT_EQ(shared->fork(0, 1), Status::kOk);
  Text ahead = text;
  extend_singly(model, *shared, 1, ahead, text_of(70, 2));  // seals what is still in the tail of sequence 0
  ASSERT_EQ(shared->fork(0, 2), Status::kOk);
  EXPECT_TRUE(content_of(model, *shared, 0, text) == content_of(model, *alone, 0, text));
  Text other = text;
  const auto outputs = extend_singly(model, *shared, 0, text, text_of(60, 3));
  EXPECT_EQ(extend_singly(model, *alone, 0, other, text_of(60, 3)), outputs);
  ASSERT_EQ(shared->drop(1), Status::kOk);
  EXPECT_TRUE(content_of(model, *shared, 0, text) == content_of(model, *alone, 0, text));
}

TEST(SequenceCache, Fork_InTheMiddleOfATile_GoesOnLikeItsText) {
  const SequenceModel model;
  for (const std::uint32_t length : {1u, 15u, 16u, 17u, 100u}) {
    const auto cache = model.make_cache(small_config(), {2, 1000});
    const auto fresh = model.make_cache(small_config(), {1, 1000});
    Text parent, child;
    model.extend(*cache, 0, parent, text_of(length, 1));
    model.extend(*fresh, 0, child, text_of(length, 1));
    ASSERT_EQ(cache->fork(0, 1), Status::kOk);
    extend_singly(model, *cache, 0, parent, text_of(50, 2));
    Text forked = child;
    const auto outputs = extend_singly(model, *cache, 1, forked, text_of(80, 3));
    EXPECT_EQ(extend_singly(model, *fresh, 0, child, text_of(80, 3)), outputs) << length;
  }
}

TEST(SequenceCache, Truncate_InTheTail_AsIfTheRestHadNeverBeen) {
  const SequenceModel model;
  for (const std::uint32_t cut : {1u, 7u, 16u, 24u}) {
    const auto cache = model.make_cache(small_config(), {1, 1000});
    const auto never = model.make_cache(small_config(), {1, 1000});
    Text text, plain;
    extend_singly(model, *cache, 0, text, text_of(100, 1));
    extend_singly(model, *never, 0, plain, text_of(100, 1));
    extend_singly(model, *cache, 0, text, text_of(cut, 2));  // no tile becomes due by them but would anyway
    ASSERT_EQ(cache->truncate(0, 100), Status::kOk);
    text.resize(100);
    expect_exact_rows(model, *cache, 0, text, 100 - kTail + cut);
    extend_singly(model, *cache, 0, text, text_of(60, 3));
    extend_singly(model, *never, 0, plain, text_of(60, 3));
    expect_exact_rows(model, *cache, 0, text, 160 - kTail);
    EXPECT_EQ(cache->account(0).sealed_tokens, never->account(0).sealed_tokens);
  }
}

// Between tokens 108 and 117 nothing becomes due: what a step sealed stays sealed whatever is cut off.
TEST(SequenceCache, Truncate_ThenTheSameTokens_ComputesTheSame) {
  const SequenceModel model;
  const auto cache = model.make_cache(small_config(), {1, 1000});
  Text text;
  extend_singly(model, *cache, 0, text, text_of(108, 1));
  const Text draft = text_of(9, 2);
  const auto first = extend_singly(model, *cache, 0, text, draft);
  for (int again = 0; again < 3; ++again) {
    ASSERT_EQ(cache->truncate(0, 111), Status::kOk);
    text.resize(111);
    const Text rest(draft.begin() + 3, draft.end());
    const auto outputs = extend_singly(model, *cache, 0, text, rest);
    EXPECT_TRUE(std::equal(outputs.begin(), outputs.end(), first.begin() + 3 * model.layers));
  }
}

TEST(SequenceCache, Truncate_InsideASealedTile_KeepsWhatTheRecordSays) {
  const SequenceModel model;
  const auto cache = model.make_cache(small_config(), {2, 1000});
  Text text;
  extend_singly(model, *cache, 0, text, text_of(150, 1));
  ASSERT_EQ(cache->fork(0, 1), Status::kOk);
  const auto before = model.read(*cache, 0, 1, Side::kValue);
  ASSERT_EQ(cache->truncate(0, 70), Status::kOk);
  text.resize(70);
  auto kept = model.read(*cache, 0, 1, Side::kValue);
  EXPECT_TRUE(std::equal(kept.begin(), kept.end(), before.begin()));
  model.extend(*cache, 0, text, text_of(5, 2));
  kept = model.read(*cache, 0, 1, Side::kValue);
  EXPECT_TRUE(std::equal(kept.begin(), kept.begin() + 70 * model.row_values(Side::kValue), before.begin()));
  expect_exact_rows(model, *cache, 0, text, 70);
  EXPECT_EQ(model.read(*cache, 1, 1, Side::kValue), before);
  extend_singly(model, *cache, 0, text, text_of(80, 3));
  EXPECT_EQ(cache->account(0).sealed_tokens, 112u);  // the cut tile is sealed again
}

TEST(SequenceCache, Cancel_LeavesNoTrace) {
  const SequenceModel model;
  for (const std::uint32_t length : {0u, 5u, 16u, 70u, 75u}) {
    const auto cache = model.make_cache(small_config(), {3, 1000});
    Text text, tried;
    if (length > 0) model.extend(*cache, 0, text, text_of(length, 1));
    ASSERT_EQ(cache->fork(0, 1), Status::kOk);
    ASSERT_EQ(cache->truncate(1, length - length / 3), Status::kOk);
    tried = text;
    tried.resize(length - length / 3);
    (void)content_of(model, *cache, 0, text);  // seals what is due
    (void)content_of(model, *cache, 1, tried);
    const Content before = content_of(model, *cache, 0, text);
    const Content sibling = content_of(model, *cache, 1, tried);
    const SequencesAccount account = cache->account();
    (void)model.run_step(*cache, {{0, text, text_of(40, 2)}, {1, tried, text_of(3, 3)}, {2, {}, text_of(9, 4)}});
    cache->cancel();
    EXPECT_EQ(cache->length(0), length);
    EXPECT_EQ(cache->account().record_bytes, account.record_bytes);
    EXPECT_EQ(cache->account().row_bytes, account.row_bytes);
    EXPECT_TRUE(content_of(model, *cache, 0, text) == before) << length;
    EXPECT_TRUE(content_of(model, *cache, 1, tried) == sibling) << length;
  }
}

TEST(SequenceCache, CallsOutOfOrder_AreRefused) {
  const SequenceModel model;
  const auto cache = model.make_cache(small_config(), {2, 100});
  const std::vector<HalfBits> row(model.row_values(Side::kKey));
  const std::vector<float> q(model.query_values());
  std::vector<float> out(model.out_values());
  const StridedRows<const HalfBits> rows{row.data(), row.size(), 32};
  const auto attend = [&] { return cache->attend(0, {}, {q.data(), 0, 32}, {out.data(), 0, 32}, {}); };
  EXPECT_EQ(cache->append<HalfBits>(0, rows, rows, {}), Status::kOutOfOrder);
  EXPECT_EQ(cache->commit(), Status::kOutOfOrder);
  EXPECT_EQ(attend(), Status::kOutOfOrder);
  const StepPart part{0, 1};
  ASSERT_EQ(cache->begin({&part, 1}), Status::kOk);
  EXPECT_EQ(cache->begin({&part, 1}), Status::kOutOfOrder);
  EXPECT_EQ(attend(), Status::kOutOfOrder);
  EXPECT_EQ(cache->append<HalfBits>(2, rows, rows, {}), Status::kInvalidArgument);
  EXPECT_EQ(cache->append<HalfBits>(0, rows, rows, {}), Status::kOk);
  EXPECT_EQ(attend(), Status::kOk);
  EXPECT_EQ(cache->commit(), Status::kOutOfOrder);  // layer 1 has no rows
  EXPECT_EQ(cache->truncate(0, 0), Status::kOutOfOrder);
  EXPECT_EQ(cache->fork(0, 1), Status::kOutOfOrder);
  EXPECT_EQ(cache->clear(), Status::kOutOfOrder);
  EXPECT_EQ(cache->append<HalfBits>(1, rows, rows, {}), Status::kOk);
  EXPECT_EQ(cache->commit(), Status::kOk);
  EXPECT_EQ(cache->length(0), 1u);
}

TEST(SequenceCache, BadArguments_AreRefusedAndNothingChanges) {
  const SequenceModel model;
  const auto cache = model.make_cache(small_config(), {3, 100});
  Text text;
  model.extend(*cache, 0, text, text_of(60, 1));
  const auto begin = [&](std::vector<StepPart> parts) { return cache->begin(parts); };
  EXPECT_EQ(begin({}), Status::kInvalidArgument);
  EXPECT_EQ(begin({{3, 1}}), Status::kInvalidArgument);
  EXPECT_EQ(begin({{1, 0}}), Status::kInvalidArgument);
  EXPECT_EQ(begin({{1, 2}, {1, 3}}), Status::kInvalidArgument);
  EXPECT_EQ(begin({{1, 2}, {0, 41}}), Status::kFull);
  EXPECT_FALSE(cache->in_step());
  EXPECT_EQ(cache->truncate(0, 61), Status::kInvalidArgument);
  EXPECT_EQ(cache->truncate(3, 0), Status::kInvalidArgument);
  EXPECT_EQ(cache->fork(0, 0), Status::kInvalidArgument);
  EXPECT_EQ(cache->fork(0, 3), Status::kInvalidArgument);
  ASSERT_EQ(cache->fork(0, 1), Status::kOk);
  EXPECT_EQ(cache->fork(0, 1), Status::kInvalidArgument);  // not empty
  std::vector<HalfBits> rows(61 * model.row_values(Side::kKey));
  EXPECT_EQ(cache->read_rows(0, 0, Side::kKey, 0, 61, {rows.data(), 128, 32}), Status::kInvalidArgument);
  EXPECT_EQ(cache->read_rows(0, 2, Side::kKey, 0, 1, {rows.data(), 128, 32}), Status::kInvalidArgument);
  EXPECT_EQ(cache->length(0), 60u);
  EXPECT_EQ(cache->account().tokens, 120u);
  EXPECT_EQ(cache->account().stored_tokens, 60u);
}

TEST(SequenceCache, ShapesOutOfRange_AreRefused) {
  const auto create = [](const CacheConfig& config, std::vector<HeadCounts> layers, SequenceLimits limits) {
    return SequenceCache::create(config, layers, limits).status();
  };
  const CacheConfig config = small_config();
  EXPECT_EQ(create(config, {{8, 4, 32, 32}}, {1, 10}), Status::kOk);
  EXPECT_EQ(create(config, {}, {1, 10}), Status::kInvalidArgument);
  EXPECT_EQ(create(config, {{8, 3, 32, 32}}, {1, 10}), Status::kInvalidArgument);
  EXPECT_EQ(create(config, {{0, 0, 32, 32}}, {1, 10}), Status::kInvalidArgument);
  EXPECT_EQ(create(config, {{8, 4, 24, 32}}, {1, 10}), Status::kInvalidArgument);
  EXPECT_EQ(create(config, {{8, 4, 32, 2048}}, {1, 10}), Status::kInvalidArgument);
  EXPECT_EQ(create(config, {{8, 4, 32, 32}}, {0, 10}), Status::kInvalidArgument);
  EXPECT_EQ(create(config, {{8, 4, 32, 32}}, {1, 0}), Status::kInvalidArgument);
  CacheConfig odd = config;
  odd.tile_tokens = 20;
  EXPECT_EQ(create(odd, {{8, 4, 32, 32}}, {1, 10}), Status::kInvalidArgument);
}

TEST(SequenceCache, Limit_RefusesAStepAndNothingChanges) {
  const SequenceModel model;
  const auto cache = model.make_cache(small_config("f16"), {2, 10000, std::uint64_t{1} << 20});
  Text text;
  std::uint32_t steps = 0;
  const StepPart part{0, 40};
  while (cache->begin({&part, 1}) == Status::kOk) {
    cache->cancel();
    model.extend(*cache, 0, text, text_of(40, ++steps));
    ASSERT_LT(steps, 1000u);
  }
  EXPECT_GT(steps, 10u);
  EXPECT_EQ(cache->length(0), 40 * steps);
  const SequencesAccount account = cache->account();
  EXPECT_LE(account.record_bytes + account.row_bytes + account.slack_bytes, std::uint64_t{1} << 20);
  expect_exact_rows(model, *cache, 0, text, 0);
  ASSERT_EQ(cache->truncate(0, 100), Status::kOk);
  text.resize(100);
  model.extend(*cache, 0, text, text_of(40, 1));  // there is room again
}

// Counts what is out; refuses beyond a number of bytes.
struct CountingAllocator {
  std::size_t out = 0;
  std::size_t most = ~std::size_t{0};
  std::size_t calls = 0;

  Allocator callbacks() {
    return {this,
            [](void* self, std::size_t bytes, std::size_t alignment) -> void* {
              auto& counter = *static_cast<CountingAllocator*>(self);
              if (counter.out + bytes > counter.most) return nullptr;
              ++counter.calls;
              counter.out += bytes;
              return std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
            },
            [](void* self, void* memory, std::size_t bytes) {
              static_cast<CountingAllocator*>(self)->out -= bytes;
              std::free(memory);
            }};
  }
};

TEST(SequenceCache, Allocator_GivesAllLargeMemoryAndGetsItBack) {
  const SequenceModel model;
  CountingAllocator counter;
  {
    const auto cache = model.make_cache(small_config(), {2, 2000}, counter.callbacks());
    Text text;
    model.extend(*cache, 0, text, text_of(500, 1));
    model.extend(*cache, 0, text, text_of(500, 2));
    const SequencesAccount account = cache->account();
    EXPECT_EQ(counter.out, account.record_bytes + account.row_bytes + account.slack_bytes);
    ASSERT_EQ(cache->drop(0), Status::kOk);
    EXPECT_EQ(counter.out, 0u);
    text.clear();
    model.extend(*cache, 1, text, text_of(30, 1));
    EXPECT_GT(counter.out, 0u);
  }
  EXPECT_EQ(counter.out, 0u);
}

TEST(SequenceCache, AllocatorThatRefuses_FailsTheStepAlone) {
  const SequenceModel model;
  CountingAllocator counter;
  counter.most = std::size_t{3} << 20;
  const auto cache = model.make_cache(small_config("f16"), {2, 100000}, counter.callbacks());
  Text text;
  model.extend(*cache, 0, text, text_of(100, 1));
  const std::size_t before = counter.out;
  const StepPart part{1, 20000};
  EXPECT_EQ(cache->begin({&part, 1}), Status::kOutOfMemory);
  EXPECT_EQ(counter.out, before);
  expect_exact_rows(model, *cache, 0, text, 0);
}

TEST(SequenceCache, AccountOfSequences_SaysWhatDroppingGivesBack) {
  const SequenceModel model;
  const auto cache = model.make_cache(small_config(), {3, 1000});
  Text text;
  extend_singly(model, *cache, 0, text, text_of(150, 1));
  const auto bytes = [&] {
    const SequencesAccount account = cache->account();
    return account.record_bytes + account.row_bytes;
  };
  const std::uint64_t one = bytes();
  ASSERT_EQ(cache->fork(0, 1), Status::kOk);
  EXPECT_EQ(bytes(), one);
  Text other = text;
  model.extend(*cache, 1, other, text_of(20, 2));
  const std::uint64_t own = cache->account(1).own_bytes;
  const std::uint64_t both = bytes();
  const std::uint64_t queries = cache->account().query_bytes;
  EXPECT_GT(own, 0u);
  ASSERT_EQ(cache->drop(1), Status::kOk);
  EXPECT_EQ(both - bytes() + (queries - cache->account().query_bytes), own);
  EXPECT_EQ(cache->account(0).own_bytes, cache->account(0).held_bytes);
  ASSERT_EQ(cache->drop(0), Status::kOk);
  EXPECT_EQ(bytes(), 0u);
}

TEST(SequenceCache, RowsThatNoRecordHolds_StayExact) {
  const SequenceModel model;
  const auto cache = model.make_cache(small_config(), {1, 1000});
  const std::uint32_t values = model.row_values(Side::kKey);
  std::vector<HalfBits> k(100 * values, HalfBits{0x3C00});
  k[20 * values + 3] = 0x7E00;  // a NaN in the second tile
  const std::vector<HalfBits> v(k.size(), HalfBits{0x3C00});
  for (const std::uint32_t tokens : {80u, 20u}) {
    const StepPart part{0, tokens};
    ASSERT_EQ(cache->begin({&part, 1}), Status::kOk);
    for (std::uint32_t layer = 0; layer < model.layers; ++layer) {
      const std::size_t at = tokens == 20 ? 80 * values : 0;
      ASSERT_EQ(cache->append<HalfBits>(layer, {k.data() + at, values, 32}, {v.data() + at, values, 32}, {}),
                Status::kOk);
    }
    ASSERT_EQ(cache->commit(), Status::kOk);
  }
  EXPECT_EQ(cache->account(0).sealed_tokens, 32u);
  const auto rows = model.read(*cache, 0, 0, Side::kKey);
  EXPECT_TRUE(std::equal(rows.begin() + 16 * values, rows.begin() + 32 * values, k.begin() + 16 * values));
}

// Samples of one prompt cost one prompt and their own rows. Shapes of SmolLM2 135M, fewer layers: they cost alike.
TEST(SequenceCache, HundredForksOf4096Tokens_TakeAtMostSevenTimesTheMemoryOfOne) {
  SequenceModel model;
  model.layers = 2;
  model.heads = {9, 3, 64, 64};
  constexpr std::uint32_t kPrompt = 4100;  // in the middle of a block of rows: the dearest
  const auto cache = model.make_cache(CacheConfig{}, {101, 5000});
  Text text;
  while (text.size() < kPrompt) {
    model.extend(*cache, 0, text, text_of(std::min<std::uint32_t>(512, kPrompt - text.size()), 1));
  }
  for (SequenceId id = 1; id <= 100; ++id) {
    ASSERT_EQ(cache->fork(0, id), Status::kOk);
    Text own = text;
    model.extend(*cache, id, own, text_of(32, id));
    model.extend(*cache, id, own, text_of(32, id + 200));
  }
  const SequencesAccount all = cache->account();
  EXPECT_EQ(all.tokens, 100u * (kPrompt + 64) + kPrompt);
  for (SequenceId id = 0; id < 100; ++id) ASSERT_EQ(cache->drop(id), Status::kOk);
  const double ratio = static_cast<double>(all.held_bytes()) / static_cast<double>(cache->account().held_bytes());
  RecordProperty("ratio", std::to_string(ratio));
  EXPECT_LE(ratio, 7.0);
  EXPECT_GT(ratio, 4.5);  // the rows of the forks alone are not less
}

// A team of threads that takes items in turns.
Runner team(unsigned workers) {
  return {workers, nullptr, [](void*, std::size_t items, void (*task)(void*, std::size_t, unsigned), void* arg) {
            std::vector<std::thread> threads;
            for (unsigned worker = 0; worker < 4; ++worker) {
              threads.emplace_back([=] {
                for (std::size_t item = worker; item < items; item += 4) task(arg, item, worker);
              });
            }
            for (std::thread& thread : threads) thread.join();
          }};
}

TEST(SequenceCache, ThreadsChangeNothing) {
  SequenceModel single, several;
  several.runner = team(4);
  const auto one = single.make_cache(small_config(), {2, 1000});
  const auto other = several.make_cache(small_config(), {2, 1000});
  Text text, same;
  for (const std::uint32_t count : {60u, 1u, 90u, 1u}) {
    EXPECT_EQ(single.extend(*one, 0, text, text_of(count, count)),
              several.extend(*other, 0, same, text_of(count, count)));
  }
}

}  // namespace
}  // namespace kvarn
