// State saves and restores as an engine does them: what was saved goes on with the same bytes, wherever its rows land.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "kept_bytes.hpp"

namespace kvarn {
namespace {

constexpr std::uint32_t kCells = 2048;

// Tiles that have room for samples of queries in their rows, as those of real models do.
CacheConfig wide_tiles(const char* preset) { return config_of(preset, 64, 64, 64); }
// Tiles that have none.
CacheConfig small_tiles(const char* preset, std::uint32_t sink = 16, std::uint32_t tail = 16) {
  return config_of(preset, 16, sink, tail);
}

void use_text(FakeEngine& engine) {
  engine.set_text([](int sequence, std::int64_t) { return static_cast<std::uint32_t>(sequence); });
}

// Sequences 0 to 2 one token each a step, so that their cells interleave.
void append_together(FakeEngine& engine, std::uint32_t steps) {
  for (std::uint32_t step = 0; step < steps; ++step) {
    ASSERT_TRUE(engine.decode({0, 1, 2}, {}, FakeEngine::Check::kOff));
  }
}

// A sequence whose later tokens lie in lower cells than its earlier ones.
void reuse_cells(FakeEngine& engine) {
  ASSERT_TRUE(engine.append(1, 270, FakeEngine::Check::kOff));
  ASSERT_TRUE(engine.append(0, 260, FakeEngine::Check::kOff));
  engine.remove(1);
  append_singly(engine, 0, 250);
}

void cut_and_go_on(FakeEngine& engine) {
  append_together(engine, 440);
  engine.roll_back(0, 37);
  append_singly(engine, 0, 50);
}

struct Case {
  const char* name;
  bool holds_records;
  void (*run)(FakeEngine&);
};

const Case kCases[] = {
    {"too short to be sealed", false, [](FakeEngine& engine) { append_singly(engine, 0, 120); }},
    {"one micro-batch", false, [](FakeEngine& engine) { ASSERT_TRUE(engine.append(0, 480, FakeEngine::Check::kOff)); }},
    {"token by token", true, [](FakeEngine& engine) { append_singly(engine, 0, 470); }},
    {"interleaved", true, [](FakeEngine& engine) { append_together(engine, 450); }},
    {"cells used again", true, reuse_cells},
    {"cut and gone on", true, cut_and_go_on},
    {"while a tile is sealed layer by layer", true, [](FakeEngine& engine) { append_singly(engine, 0, 64 * 8); }},
};

void expect_same_sequence(FakeEngine& left, FakeEngine& right) {
  for (const Side side : {Side::kKey, Side::kValue})
    expect_same(kept_bytes(left, 0, 0, side), kept_bytes(right, 0, 0, side));
}

TEST(State, RestoredSequence_GoesOnAsIfItHadNeverBeenSaved) {
  for (const char* preset : {"f16", "k8v8", "k4v4", "k2v2", "k4v2", "k4v2+bytes"}) {
    for (const Case& scenario : kCases) {
      SCOPED_TRACE(std::string(preset) + ", " + scenario.name);
      FakeEngine saved(wide_tiles(preset), kCells, 1);
      FakeEngine unsaved(wide_tiles(preset), kCells, 1);
      FakeEngine restored(wide_tiles(preset), kCells, 2);
      for (FakeEngine* engine : {&saved, &unsaved, &restored}) use_text(*engine);
      ASSERT_NO_FATAL_FAILURE(scenario.run(saved));
      ASSERT_NO_FATAL_FAILURE(scenario.run(unsaved));
      ASSERT_TRUE(restored.append(3, 21, FakeEngine::Check::kOff));  // other cells than before
      ASSERT_TRUE(restored.restore(saved.save(0), 0));
      expect_same_sequence(restored, unsaved);
      for (FakeEngine* engine : {&saved, &unsaved, &restored}) append_singly(*engine, 0, 200);
      expect_same_sequence(restored, saved);
      // Without a record there is nothing that samples of queries could travel in: both go on without them.
      if (scenario.holds_records) expect_same_sequence(restored, unsaved);
    }
  }
}

TEST(State, RestoredOverItself_IsTheSameSequence) {
  FakeEngine engine(small_tiles("k4v4"), kCells, 3);
  use_text(engine);
  append_together(engine, 120);
  const KeptBytes before = kept_bytes(engine, 0, 0);
  const KeptBytes other = kept_bytes(engine, 1, 0);
  ASSERT_TRUE(engine.restore(engine.save(0), 0));
  expect_same(kept_bytes(engine, 0, 0), before);
  expect_same(kept_bytes(engine, 1, 0), other);
  for (int step = 0; step < 40; ++step) ASSERT_TRUE(engine.decode({0, 1, 2}));
  EXPECT_EQ(engine.mismatches(), 0u);
}

TEST(State, RestoreThatIsGivenUp_LeavesNothingForTheNextOne) {
  FakeEngine source(wide_tiles("k4v4"), kCells, 14);
  use_text(source);
  append_together(source, 400);
  const FakeEngine::SavedState saved = source.save(0);
  for (const std::size_t rows : {1u, 170u, 400u, 401u, 900u, 1599u}) {
    SCOPED_TRACE(rows);
    FakeEngine target(wide_tiles("k4v4"), kCells, 15);
    use_text(target);
    ASSERT_TRUE(target.append(1, 33, FakeEngine::Check::kOff));
    ASSERT_TRUE(target.restore(saved, 0, rows));
    ASSERT_TRUE(target.restore(saved, 0));
    expect_same_sequence(target, source);
    ASSERT_TRUE(target.restore(saved, 0, rows));
    ASSERT_TRUE(target.append(2, 20, FakeEngine::Check::kOff));  // other cells for the next one
    ASSERT_TRUE(target.restore(saved, 0));
    expect_same_sequence(target, source);
  }
}

TEST(State, ShortRestoreAfterOneThatWasGivenUp_StartsATileOfItsOwn) {
  FakeEngine source(wide_tiles("k4v4"), kCells, 16);
  use_text(source);
  append_singly(source, 0, 100);
  const FakeEngine::SavedState saved = source.save(0);
  FakeEngine target(wide_tiles("k4v4"), kCells, 17);
  use_text(target);
  ASSERT_TRUE(target.restore(saved, 0, 170));
  ASSERT_TRUE(target.append(2, 20, FakeEngine::Check::kOff));
  ASSERT_TRUE(target.restore(saved, 0));
  for (FakeEngine* engine : {&source, &target}) append_singly(*engine, 0, 200);
  expect_same_sequence(target, source);
}

TEST(State, SavedTwice_GivesTheSameRows) {
  FakeEngine engine(small_tiles("k4v4"), kCells, 4);
  append_together(engine, 100);
  const auto first = engine.save(1);
  EXPECT_EQ(engine.save(1).rows, first.rows);
  EXPECT_NE(engine.save(2).rows, first.rows);
}

TEST(State, StoreThatIsReadAlone_GivesValues) {
  FakeEngine engine(small_tiles("k4v4", 0, 0), kCells, 5);
  append_singly(engine, 0, 100);
  std::vector<HalfBits> rows(100 * FakeEngine::kRow), row(FakeEngine::kRow);
  for (const StoreId store : {3u, 2u}) {
    KvCache& cache = engine.cache();
    cache.read_state_rows(store, 0, 0, 100, rows.data());
    cache.observe({}, {});
    for (std::uint32_t cell = 0; cell < 100; ++cell) {
      cache.read_row(store, 0, cell, row.data());
      EXPECT_TRUE(std::equal(row.begin(), row.end(), rows.begin() + cell * FakeEngine::kRow)) << cell;
    }
  }
}

TEST(State, SequenceThatSharesATile_TakesOnlyItsOwnRows) {
  FakeEngine engine(small_tiles("k4v4", 0, 0), kCells, 6);
  use_text(engine);
  append_singly(engine, 0, 40);
  engine.fork(0, 1);
  append_singly(engine, 0, 60);
  append_singly(engine, 1, 60);
  for (const int sequence : {0, 1}) {
    FakeEngine restored(small_tiles("k4v4", 0, 0), kCells, 7);
    ASSERT_TRUE(restored.restore(engine.save(sequence), sequence));
    std::vector<HalfBits> left(FakeEngine::kRow), right(left);
    const auto from = engine.cells_of(sequence), to = restored.cells_of(sequence);
    for (std::size_t token = 0; token < from.size(); ++token) {
      engine.cache().read_row(1, 0, from[token], left.data());
      restored.cache().read_row(1, 0, to[token], right.data());
      EXPECT_EQ(left, right) << token;
    }
    append_singly(restored, sequence, 50);
    ASSERT_TRUE(restored.append(sequence, 20));
    EXPECT_EQ(restored.mismatches(), 0u);
  }
}

TEST(State, DamagedRows_ChangeNothingOfOtherSequences) {
  FakeEngine source(small_tiles("k4v4"), kCells, 8);
  use_text(source);
  append_together(source, 120);
  const FakeEngine::SavedState good = source.save(0);
  std::mt19937 random(9);
  for (int round = 0; round < 200; ++round) {
    FakeEngine::SavedState bad = good;
    for (int flips = 1 + static_cast<int>(random() % 20); flips > 0; --flips) {
      auto& rows = bad.rows[random() % bad.rows.size()];
      switch (random() % 3) {
        case 0:
          rows[random() % rows.size()] ^= static_cast<HalfBits>(1u << random() % 16);
          break;
        case 1:
          std::swap_ranges(rows.begin(), rows.begin() + FakeEngine::kRow,
                           rows.begin() + static_cast<std::ptrdiff_t>(1 + random() % 100) * FakeEngine::kRow);
          break;
        default:
          std::fill_n(rows.begin() + static_cast<std::ptrdiff_t>(random() % 100) * FakeEngine::kRow, FakeEngine::kRow,
                      static_cast<HalfBits>(random()));
      }
    }
    FakeEngine target(small_tiles("k4v4"), kCells, 10);
    use_text(target);
    append_together(target, 60);
    const KeptBytes other = kept_bytes(target, 1, 0);
    ASSERT_TRUE(target.restore(bad, 0));
    expect_same(kept_bytes(target, 1, 0), other);
    append_singly(target, 0, 5);
    ASSERT_TRUE(target.append(1, 1));
    EXPECT_EQ(target.mismatches(), 0u) << round;
  }
}

TEST(State, DamagedFragment_IsServedAsTheNumbersItSpells) {
  FakeEngine source(small_tiles("k4v4", 0, 0), kCells, 12);
  append_singly(source, 0, 100);
  FakeEngine::SavedState saved = source.save(0);
  saved.rows[1][5 * FakeEngine::kRow + 20] ^= 1;
  FakeEngine other(small_tiles("k4v4", 0, 0), kCells, 13);
  ASSERT_TRUE(other.restore(saved, 0));
  std::vector<HalfBits> row(FakeEngine::kRow);
  for (std::uint32_t cell = 0; cell < 16; ++cell) {
    other.cache().read_row(other.store(1, Side::kKey), 0, cell, row.data());
    EXPECT_TRUE(std::equal(row.begin(), row.end(), saved.rows[1].begin() + cell * FakeEngine::kRow)) << cell;
  }
  EXPECT_TRUE(other.cache().records_at(other.store(1, Side::kKey), 0, 0).empty());
  EXPECT_FALSE(other.cache().records_at(other.store(1, Side::kKey), 0, 16).empty());
}

}  // namespace
}  // namespace kvarn
