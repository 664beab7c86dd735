// Random schedules of everything an engine does to a cache, against plain arrays of rows.
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "fake_engine.hpp"

namespace kvarn {
namespace {

constexpr std::uint32_t kCells = 320;
constexpr int kSequences = 4;

void random_step(FakeEngine& engine) {
  std::mt19937& random = engine.random();
  const int sequence = static_cast<int>(random() % kSequences);
  switch (random() % 17) {
    case 0:
      engine.remove(sequence);
      break;
    case 1:
      engine.roll_back(sequence, 1 + random() % 40);
      break;
    case 2:
      engine.fork(sequence, static_cast<int>(random() % kSequences));
      break;
    case 3:
      if (random() % 20 == 0) engine.clear();
      break;
    case 4: {  // all sequences at once, interleaved
      std::vector<int> tokens;
      for (int other = 0; other < kSequences; ++other) tokens.push_back(other);
      if (!engine.decode(tokens)) engine.remove(sequence);
      break;
    }
    case 16:
      (void)engine.restore(engine.save(sequence), static_cast<int>(random() % kSequences));
      break;
    case 5:
      engine.roll_back(sequence, 1 + random() % 4);
      [[fallthrough]];
    case 6:
      if (!engine.append(sequence, 1 + random() % 50)) engine.remove(sequence);
      break;
    default:
      if (!engine.append(sequence, 1 + random() % 4)) engine.remove(sequence);
  }
}

void run_schedule(const CacheConfig& config, std::uint32_t seed, int steps) {
  SCOPED_TRACE("seed " + std::to_string(seed));
  FakeEngine engine(config, kCells, seed);
  for (int step = 0; step < steps; ++step) {
    random_step(engine);
    if (config.exact) engine.expect_exact(static_cast<int>(engine.random()() % kSequences));
    ASSERT_EQ(engine.mismatches(), 0u) << "step " << step;
    ASSERT_FALSE(testing::Test::HasFatalFailure()) << "step " << step;
  }
  EXPECT_GT(engine.compared(), 0u);
}

CacheConfig small_tiles(const char* preset) { return config_of(preset, 16, 16, 16); }

TEST(CacheSchedule, ExactTiles_AnyOrderOfOperations_AreAPlainArray) { run_schedule(small_tiles("f16"), 11, 4000); }
TEST(CacheSchedule, EightBits_AnyOrderOfOperations_AttendsToWhatItReadsBack) {
  run_schedule(small_tiles("k8v8"), 12, 3000);
}
TEST(CacheSchedule, FourAndTwoBits_AnyOrderOfOperations_AttendsToWhatItReadsBack) {
  run_schedule(small_tiles("k4v2"), 13, 2000);
}
TEST(CacheSchedule, NoSinkNoTail_AnyOrderOfOperations_AttendsToWhatItReadsBack) {
  CacheConfig config = small_tiles("k8v8");
  config.sink_tokens = 0;
  config.tail_tokens = 0;
  run_schedule(config, 14, 2000);
}

TEST(CacheSchedule, QueriesKept_AnyOrderOfOperations_AttendsToWhatItReadsBack) {
  CacheConfig config = small_tiles("k4v2");
  config.level = EncoderLevel::kBest;
  run_schedule(config, 16, 2000);
}

TEST(CacheSchedule, OwnRowsSealed_AnyOrderOfOperations_AttendsToWhatItReadsBack) {
  for (const char* preset : {"k8v8", "k4v2", "k4v2+bytes"}) {
    CacheConfig config = small_tiles(preset);
    config.sink_tokens = 0;
    config.tail_tokens = 0;
    config.seals_own_rows = true;
    run_schedule(config, 15, 2000);
  }
}

TEST(CacheSchedule, BaselineCodecs_AnyOrderOfOperations_AttendToWhatTheyReadBack) {
  for (const bool seals_own_rows : {false, true}) {
    CacheConfig config = small_tiles("k4v4");
    ASSERT_EQ(apply_codec("q8_0/q4_0", config), Status::kOk);
    config.sink_tokens = 0;
    config.tail_tokens = 0;
    config.seals_own_rows = seals_own_rows;
    run_schedule(config, 16, 1000);
  }
}

}  // namespace
}  // namespace kvarn
