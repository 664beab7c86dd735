#include "cache/kv_cache.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "fake_engine.hpp"
#include "kernels/kernel_table.hpp"

namespace kvarn {
namespace {

// Records depend on rows alone; query_lineage_test.cpp has the level best.
CacheConfig fast_config(const char* preset, std::uint32_t tile, std::uint32_t sink, std::uint32_t tail) {
  CacheConfig config = config_of(preset, tile, sink, tail);
  config.level = EncoderLevel::kFast;
  return config;
}

std::vector<HalfBits> read(FakeEngine& engine, std::uint32_t layer, Side side, std::uint32_t cell) {
  std::vector<HalfBits> row(FakeEngine::kRow);
  engine.cache().read_row(engine.store(layer, side), 0, cell, row.data());
  return row;
}

bool exact(FakeEngine& engine, std::uint32_t cell) {
  bool all = true;
  for (std::uint32_t layer = 0; layer < FakeEngine::kLayers; ++layer) {
    for (const Side side : {Side::kKey, Side::kValue}) {
      all = all && read(engine, layer, side, cell) == engine.written(layer, side, cell);
    }
  }
  return all;
}

TEST(SealRule, OnlyTilesBetweenSinkAndTail_LoseTheirExactRows) {
  FakeEngine engine(fast_config("k2v2", 16, 16, 32), 256, 1);
  for (int token = 0; token < 160; ++token) ASSERT_TRUE(engine.append(0, 1));
  // The newest token has rank 159. The last tile that every layer has sealed ends at or below 159 - tail - layer
  // stagger.
  for (std::uint32_t cell = 0; cell < 16; ++cell) EXPECT_TRUE(exact(engine, cell)) << cell;
  for (std::uint32_t cell = 16; cell < 112; ++cell) EXPECT_FALSE(exact(engine, cell)) << cell;
  for (std::uint32_t cell = 128; cell < 160; ++cell) EXPECT_TRUE(exact(engine, cell)) << cell;
  EXPECT_EQ(engine.mismatches(), 0u);
}

TEST(SealRule, MicroBatch_SeesItsOwnRowsAndTheTailBeforeItExactly) {
  FakeEngine engine(fast_config("k2v2", 16, 0, 32), 512, 2);
  ASSERT_TRUE(engine.append(0, 100));
  for (std::uint32_t cell = 0; cell < 100; ++cell) EXPECT_TRUE(exact(engine, cell)) << cell;
  ASSERT_TRUE(engine.append(0, 100));
  // Sealed tiles end at or below 100 - 32: cells 0 to 63 in layer 0.
  for (std::uint32_t cell = 64; cell < 200; ++cell) EXPECT_TRUE(exact(engine, cell)) << cell;
  for (std::uint32_t cell = 0; cell < 64; ++cell) EXPECT_FALSE(exact(engine, cell)) << cell;
}

TEST(SealRule, MicroBatchOfInterleavedSequences_SeesTheTailBeforeItExactly) {
  FakeEngine engine(fast_config("k2v2", 16, 0, 32), 512, 2);
  ASSERT_TRUE(engine.append(0, 100));
  ASSERT_TRUE(engine.append(1, 100));
  std::vector<int> in_turns;
  for (int token = 0; token < 200; ++token) in_turns.push_back(token % 2);
  ASSERT_TRUE(engine.decode(in_turns));
  for (const int sequence : {0, 1}) {
    const auto cells = engine.cells_of(sequence);
    for (std::size_t rank = 0; rank < 64; ++rank) EXPECT_FALSE(exact(engine, cells[rank])) << rank;
    for (std::size_t rank = 64; rank < 200; ++rank) EXPECT_TRUE(exact(engine, cells[rank])) << rank;
  }
}

TEST(SealRule, RowsThatAnotherSequencesCutMoved_KeepTheirRank) {
  FakeEngine engine(fast_config("k2v2", 16, 0, 16), 256, 5);
  ASSERT_TRUE(engine.append(0, 32));
  engine.fork(0, 1);
  engine.roll_back(0, 22);
  engine.drop(1, 10);
  ASSERT_TRUE(
      engine.decode({2, 0}));  // the cell that was freed, in the middle of the tile that both share, goes to another
  for (int token = 0; token < 40; ++token) {
    ASSERT_TRUE(engine.append(1, 1));
    const auto cells = engine.cells_of(1);
    for (std::size_t at = cells.size() - 16; at < cells.size(); ++at) EXPECT_TRUE(exact(engine, cells[at])) << at;
  }
  EXPECT_EQ(engine.mismatches(), 0u);
}

// Nobody says that the old sequence is gone: its second tile went on in cells that the new one does not come to.
TEST(SealRule, NewSequenceInTheCellsOfAnErasedOne_FillsTilesFromItsStart) {
  FakeEngine engine(fast_config("k4v4", 32, 0, 0), 140, 8);
  for (const auto& [sequence, tokens] : {std::pair{1, 61}, {2, 40}, {4, 39}}) engine.append(sequence, tokens);
  engine.remove(1);
  engine.remove(4);
  engine.append(3, 70);  // cells 0 to 60, then 101 to 109
  engine.append(5, 30);  // all cells behind them
  for (const int sequence : {2, 3}) engine.remove(sequence);
  engine.append(7, 70);  // cells 0 to 69
  const std::vector<std::uint32_t> cells = engine.cells_of(7);
  ASSERT_EQ(cells.back(), 69u);
  for (int step = 0; step < 20; ++step) engine.append(7, 1);
  for (std::uint32_t token = 0; token < 64; ++token) EXPECT_FALSE(exact(engine, cells[token])) << token;
}

TEST(SealRule, SlidingWindow_KeepsEveryRowExact) {
  // A window of 64 tokens over 96 cells: old tokens are dropped one by one and their cells used again.
  FakeEngine engine(fast_config("k2v2", 16, 0, 48), 96, 3);
  for (int token = 0; token < 400; ++token) {
    ASSERT_TRUE(engine.append(0, 1));
    const auto cells = engine.cells_of(0);
    if (cells.size() > 64) engine.drop_oldest(0);
    if (token > 100) {
      ASSERT_NO_FATAL_FAILURE(engine.expect_exact(0));
    }
  }
  EXPECT_EQ(engine.mismatches(), 0u);
}

TEST(SealRule, WindowThatKeepsItsCells_SealsWhatLeftItLongAgo) {
  FakeEngine engine(fast_config("k2v2", 16, 0, 48), 4096, 14);
  engine.set_window(64);
  for (int token = 0; token < 3000; ++token) ASSERT_TRUE(engine.append(0, 1, FakeEngine::Check::kOff));
  for (std::uint32_t cell = 3000 - 2048; cell < 3000; cell += 100) EXPECT_TRUE(exact(engine, cell)) << cell;
  const CacheAccount account = engine.cache().account();
  EXPECT_GT(account.sealed_tokens, 700u);
  EXPECT_LT(account.sealed_tokens, 1000u);
}

TEST(SealRule, ExpectedWindow_SealsNothingInsideIt_BeforeItShowsItself) {
  FakeEngine engine(fast_config("k2v2", 16, 0, 16), 512, 15);
  engine.set_window(64);
  engine.cache().expect_window();
  for (int round = 0; round < 2; ++round) {
    for (int batch = 0; batch < 8; ++batch) {
      ASSERT_TRUE(engine.append(0, 12, FakeEngine::Check::kOff));
      EXPECT_EQ(engine.cache().account().sealed_tokens, 0u) << batch;
    }
    engine.clear();
  }
}

TEST(SealRule, ExpectedWindow_KeepsNoQueries) {
  for (const bool is_expected : {false, true}) {
    FakeEngine engine(config_of("k4v4", 16, 0, 16), 512, 16);
    engine.set_window(64);
    if (is_expected) engine.cache().expect_window();
    std::uint64_t most = 0;
    for (int batch = 0; batch < 20; ++batch) {
      ASSERT_TRUE(engine.append(0, 12, FakeEngine::Check::kOff));
      most = std::max(most, engine.cache().account().moment_bytes);
    }
    EXPECT_EQ(most > 0, !is_expected);
  }
}

CacheConfig own_rows_sealed(const char* preset, std::uint32_t sink) {
  CacheConfig config = fast_config(preset, 16, sink, 0);
  config.seals_own_rows = true;
  return config;
}

// Largest distance between a row as it reads back and as it was written, of all layers and both sides.
float worst_error(FakeEngine& engine, std::uint32_t cell) {
  float worst = 0.0f;
  for (std::uint32_t layer = 0; layer < FakeEngine::kLayers; ++layer) {
    for (const Side side : {Side::kKey, Side::kValue}) {
      const auto row = read(engine, layer, side, cell);
      const auto& written = engine.written(layer, side, cell);
      for (std::size_t at = 0; at < row.size(); ++at) {
        worst = std::max(worst, std::abs(half_to_float(row[at]) - half_to_float(written[at])));
      }
    }
  }
  return worst;
}

TEST(OwnRowsSealed, EveryCompleteTileBehindTheSink_IsReadFromItsRecordInTheSameMicroBatch) {
  FakeEngine engine(own_rows_sealed("k8v8", 16), 512, 21);
  ASSERT_TRUE(engine.append(0, 40));
  for (std::uint32_t cell = 0; cell < 16; ++cell) EXPECT_TRUE(exact(engine, cell)) << cell;
  for (std::uint32_t cell = 16; cell < 32; ++cell) EXPECT_FALSE(exact(engine, cell)) << cell;
  for (std::uint32_t cell = 32; cell < 40; ++cell) EXPECT_TRUE(exact(engine, cell)) << cell;
  ASSERT_TRUE(engine.append(0, 75));  // completes a tile that was open
  for (int token = 0; token < 13; ++token) ASSERT_TRUE(engine.append(0, 1));
  for (std::uint32_t cell = 16; cell < 128; ++cell) {
    EXPECT_FALSE(exact(engine, cell)) << cell;
    EXPECT_LT(worst_error(engine, cell), 0.05f) << cell;  // a few steps of 8 bits: every row was written before
  }
  EXPECT_EQ(engine.cache().account().sealed_tokens, 112u);
  EXPECT_EQ(engine.mismatches(), 0u);  // each query saw only what its mask shows of sealed tiles
}

TEST(OwnRowsSealed, TokenThatCompletedATileAndIsRewritten_TakesItsNewValue) {
  FakeEngine engine(own_rows_sealed("k8v8", 0), 256, 22);
  for (int token = 0; token < 32; ++token) ASSERT_TRUE(engine.append(0, 1));
  for (int again = 0; again < 3; ++again) {
    engine.roll_back(0, 1);
    ASSERT_TRUE(engine.append(0, 1));
    EXPECT_TRUE(exact(engine, 31));
    EXPECT_FALSE(exact(engine, 30));
    EXPECT_LT(worst_error(engine, 30), 0.05f);
  }
  EXPECT_EQ(engine.mismatches(), 0u);
}

TEST(OwnRowsSealed, SlidingWindow_StaysExactOnceItHasShownItself) {
  FakeEngine engine(own_rows_sealed("k2v2", 0), 512, 23);
  engine.set_window(32);
  ASSERT_TRUE(engine.append(0, 32));
  for (int batch = 0; batch < 8; ++batch) ASSERT_TRUE(engine.append(0, 32));
  for (std::uint32_t cell = 32; cell < 288; ++cell) EXPECT_TRUE(exact(engine, cell)) << cell;
  EXPECT_EQ(engine.mismatches(), 0u);
}

CacheConfig baseline(const char* codec) {
  CacheConfig config = own_rows_sealed("k4v4", 16);
  EXPECT_EQ(apply_codec(codec, config), Status::kOk);
  return config;
}

// A row as the format rounds it; heads of 32 channels are not rotated.
std::vector<HalfBits> rounded(BaselineFormat format, const std::vector<HalfBits>& row) {
  std::vector<float> values(row.size());
  std::transform(row.begin(), row.end(), values.begin(), half_to_float);
  round_to_baseline(format, values.data(), values.size());
  std::vector<HalfBits> back(row.size());
  std::transform(values.begin(), values.end(), back.begin(), float_to_half);
  return back;
}

TEST(BaselineCodec, DueTile_HoldsRoundedRowsAndNoRecord) {
  FakeEngine engine(baseline("q8_0/q4_0"), 256, 24);
  ASSERT_TRUE(engine.append(0, 40));
  for (std::uint32_t layer = 0; layer < FakeEngine::kLayers; ++layer) {
    for (std::uint32_t cell = 0; cell < 40; ++cell) {
      const bool due = cell >= 16 && cell < 32;
      const auto& k = engine.written(layer, Side::kKey, cell);
      const auto& v = engine.written(layer, Side::kValue, cell);
      EXPECT_EQ(read(engine, layer, Side::kKey, cell), due ? rounded(BaselineFormat::kQ8_0, k) : k) << cell;
      EXPECT_EQ(read(engine, layer, Side::kValue, cell), due ? rounded(BaselineFormat::kQ4_0, v) : v) << cell;
    }
  }
  const CacheAccount account = engine.cache().account();
  EXPECT_EQ(account.record_bytes, 0u);
  EXPECT_EQ(account.sealed_tokens, 16u);
  EXPECT_EQ(account.open_row_bytes, std::uint64_t{48} * FakeEngine::kRow * 2 * FakeEngine::kLayers * sizeof(HalfBits));
}

TEST(BaselineCodec, StateRows_AreTheRoundedRows) {
  FakeEngine engine(baseline("q4_0"), 256, 25);
  ASSERT_TRUE(engine.append(0, 32));
  const FakeEngine::SavedState saved = engine.save(0);
  for (std::uint32_t store = 0; store < 2; ++store) {
    for (std::uint32_t cell = 0; cell < 32; ++cell) {
      const auto row = read(engine, store, Side::kKey, cell);
      EXPECT_TRUE(std::equal(row.begin(), row.end(), saved.rows[store].begin() + cell * FakeEngine::kRow)) << cell;
    }
  }
}

TEST(BaselineCodec, EditedTile_IsRoundedAgain) {
  FakeEngine engine(baseline("q4_0"), 256, 26);
  ASSERT_TRUE(engine.append(0, 32));
  std::vector<HalfBits> ramp(FakeEngine::kRow);
  for (std::size_t at = 0; at < ramp.size(); ++at) ramp[at] = float_to_half(0.01f * static_cast<float>(at));
  ASSERT_EQ(engine.cache().edit_rows(
                engine.store(0, Side::kKey), 0, [](std::uint32_t) { return true; },
                [&](HalfBits* rows, std::span<const std::uint32_t> cells) {
                  for (std::size_t row = 0; row < cells.size(); ++row) {
                    std::copy(ramp.begin(), ramp.end(), rows + row * FakeEngine::kRow);
                  }
                }),
            Status::kOk);
  EXPECT_EQ(read(engine, 0, Side::kKey, 3), ramp);  // in the sink
  EXPECT_EQ(read(engine, 0, Side::kKey, 20), rounded(BaselineFormat::kQ4_0, ramp));
}

TEST(BaselineCodec, HeadsThatABlockDoesNotDivide_AreRefused) {
  KvCache cache(baseline("q4_0"), 1, 64);
  const StoreId k = cache.add_store(Side::kKey, 0, 96);
  const StoreId v = cache.add_store(Side::kValue, 0, 96);
  EXPECT_EQ(cache.learn_heads(k, v, {4, 2, 48, 48}), Status::kInvalidArgument);
  EXPECT_EQ(cache.learn_heads(k, v, {4, 1, 96, 96}), Status::kOk);
}

TEST(SealedTile_RewrittenCell, IsExactAndItsNeighboursKeepTheirValues) {
  FakeEngine engine(fast_config("k4v4", 16, 0, 0), 256, 4);
  for (int token = 0; token < 120; ++token) ASSERT_TRUE(engine.append(0, 1));
  ASSERT_FALSE(exact(engine, 40));
  std::vector<std::vector<HalfBits>> before;
  for (std::uint32_t cell = 0; cell < 64; ++cell) before.push_back(read(engine, 0, Side::kKey, cell));
  std::vector<HalfBits> row(FakeEngine::kRow, float_to_half(0.25f));
  ASSERT_EQ(engine.cache().write_row(engine.store(0, Side::kKey), 0, 40, row.data()), Status::kOk);
  EXPECT_EQ(read(engine, 0, Side::kKey, 40), row);
  for (std::uint32_t cell = 0; cell < 64; ++cell) {
    if (cell != 40) {
      EXPECT_EQ(read(engine, 0, Side::kKey, cell), before[cell]) << cell;
    }
  }
}

TEST(Records, FourInterleavedSlots_WriteTheSameBytesAsOneAlone) {
  const CacheConfig config = fast_config("k4v4", 16, 0, 0);
  FakeEngine alone(config, 512, 5);
  FakeEngine together(config, 512, 6);
  std::vector<HalfBits> row(FakeEngine::kRow);
  // The same rows are written to both caches: sequence 0 alone, and between three others.
  std::vector<HalfBits> alone_state, together_state;
  for (int token = 0; token < 64; ++token) {
    ASSERT_TRUE(alone.append(0, 1));
    ASSERT_TRUE(together.decode({1, 2, 0, 3}, [&](std::uint32_t layer, Side side, int sequence) {
      return sequence == 0 ? alone.written(layer, side, alone.cells_of(0).back()) : std::vector<HalfBits>{};
    }));
  }
  const auto cells_alone = alone.cells_of(0);
  const auto cells_together = together.cells_of(0);
  for (std::uint32_t token = 0; token < 32; ++token) {
    EXPECT_FALSE(exact(together, cells_together[token]));
    for (const Side side : {Side::kKey, Side::kValue}) {
      EXPECT_EQ(read(alone, 0, side, cells_alone[token]), read(together, 0, side, cells_together[token])) << token;
    }
  }
}

// Rows are laid out for attention once the heads are known; what was written before is moved then.
TEST(Rows, WrittenBeforeTheHeadsAreKnown_ReadBackAndAttendAsIfAfter) {
  constexpr std::uint32_t kCells = 40, kRow = 96;
  constexpr HeadCounts kCounts{4, 2, 48, 48};
  std::mt19937 random(20);
  std::normal_distribution<float> normal;
  std::vector<float> values(std::size_t{kCells} * kRow), q(4 * 48);
  for (float& value : values) value = normal(random);
  for (float& value : q) value = normal(random);
  values[5] = 1e9f;  // saturates
  std::vector<HalfBits> mask(kCells, 0);
  BatchMask batch;
  batch.data = mask.data();
  batch.slices = batch.queries = 1;
  batch.columns = batch.query_stride = kCells;
  std::vector<std::vector<float>> outputs;
  for (const std::uint32_t known_from : {0u, 1u, 17u, kCells}) {
    KvCache cache(fast_config("k4v4", 32, 0, 128), 1, 64);
    const StoreId k = cache.add_store(Side::kKey, 0, kRow);
    const StoreId v = cache.add_store(Side::kValue, 0, kRow);
    std::vector<HalfBits> halves(kRow), back(kRow);
    const auto expect_rows = [&](std::uint32_t count) {
      for (std::uint32_t cell = 0; cell < count; ++cell) {
        kernels().floats_to_halves(&values[std::size_t{cell} * kRow], kRow, halves.data());
        for (const StoreId store : {k, v}) {
          cache.read_row(store, 0, cell, back.data());
          ASSERT_EQ(back, halves) << "cell " << cell << " heads known from " << known_from;
        }
      }
    };
    for (std::uint32_t cell = 0; cell < kCells; ++cell) {
      if (cell == known_from) {
        ASSERT_EQ(cache.learn_heads(k, v, kCounts), Status::kOk);
        expect_rows(cell);
      }
      const float* row = &values[std::size_t{cell} * kRow];
      kernels().floats_to_halves(row, kRow, halves.data());
      ASSERT_EQ(cache.write_row(k, 0, cell, row), Status::kOk);
      ASSERT_EQ(cell % 2 == 0 ? cache.write_row(v, 0, cell, row) : cache.write_row(v, 0, cell, halves.data()),
                Status::kOk);
    }
    expect_rows(kCells);
    std::vector<float> out(q.size());
    const AttentionTensors tensors{q.data(), 0, q.size(), 48, out.data(), 0, q.size(), 48};
    ASSERT_EQ(cache.attend(k, v, kCounts, {.scale = 0.1f}, batch, tensors, Runner{}), Status::kOk);
    expect_rows(kCells);
    outputs.push_back(out);
    EXPECT_EQ(out, outputs[0]) << "heads known from " << known_from;
  }
}

TEST(Streams, Copy_SharesBytesUntilOneSideChanges) {
  KvCache cache(fast_config("f16", 16, 0, 0), 2, 64);
  const StoreId k = cache.add_store(Side::kKey, 0, 64);
  const StoreId v = cache.add_store(Side::kValue, 0, 64);
  std::vector<HalfBits> row(64), other(64, 0x3C00), back(64);
  for (std::uint32_t cell = 0; cell < 40; ++cell) {
    std::fill(row.begin(), row.end(), static_cast<HalfBits>(cell + 1));
    ASSERT_EQ(cache.write_row(k, 0, cell, row.data()), Status::kOk);
    ASSERT_EQ(cache.write_row(v, 0, cell, row.data()), Status::kOk);
  }
  const CacheAccount before = cache.account();
  cache.copy_stream(0, 1);
  cache.copy_stream(0, 1);
  EXPECT_EQ(cache.account().open_row_bytes, before.open_row_bytes);
  EXPECT_EQ(cache.account().cells_in_use, 80u);
  ASSERT_EQ(cache.write_row(k, 1, 7, other.data()), Status::kOk);
  cache.read_row(k, 0, 7, back.data());
  EXPECT_EQ(back, std::vector<HalfBits>(64, 8));
  cache.read_row(k, 1, 7, back.data());
  EXPECT_EQ(back, other);
  cache.read_row(v, 1, 7, back.data());
  EXPECT_EQ(back, std::vector<HalfBits>(64, 8));
}

TEST(Memory, ClearedCache_GivesEverythingBack) {
  FakeEngine engine(fast_config("k4v4", 16, 16, 16), 512, 8);
  for (int batch = 0; batch < 10; ++batch) ASSERT_TRUE(engine.append(0, 40));
  const CacheAccount full = engine.cache().account();
  EXPECT_GT(full.record_bytes, 0u);
  EXPECT_GT(full.sealed_tokens, 0u);
  engine.clear();
  const CacheAccount empty = engine.cache().account();
  EXPECT_EQ(empty.record_bytes + empty.open_row_bytes + empty.slack_bytes + empty.cells_in_use, 0u);
}

TEST(Memory, RollbackInsideTheTail_WastesNoTile) {
  FakeEngine engine(fast_config("k4v4", 16, 0, 32), 512, 9);
  for (int step = 0; step < 300; ++step) {
    ASSERT_TRUE(engine.append(0, 5));
    engine.roll_back(0, 4);
  }
  ASSERT_TRUE(engine.append(0, 1));
  const CacheAccount account = engine.cache().account();
  EXPECT_GE(account.sealed_tokens, 240u);
  EXPECT_EQ(account.sealed_tokens % 16, 0u);
  EXPECT_EQ(engine.mismatches(), 0u);
}

TEST(SealRule, RowsThatAreNotFinite_KeepTheirTileExact) {
  FakeEngine engine(fast_config("k4v4", 16, 0, 0), 256, 10);
  ASSERT_TRUE(engine.decode(
      std::vector<int>(16, 0),
      [&](std::uint32_t, Side side, int) {
        std::vector<HalfBits> row(FakeEngine::kRow, 0x3C00);
        if (side == Side::kKey) row[5] = 0x7E00;  // NaN
        return row;
      },
      FakeEngine::Check::kOff));
  for (int token = 0; token < 64; ++token) ASSERT_TRUE(engine.append(0, 1, FakeEngine::Check::kOff));
  EXPECT_EQ(read(engine, 0, Side::kKey, 3), engine.written(0, Side::kKey, 3));
  EXPECT_NE(engine.cache().account().record_bytes, 0u);
}

TEST(EditRows, SealedTile_IsSealedAgainFromTheEditedRows) {
  FakeEngine engine(fast_config("k8v8", 16, 0, 0), 256, 13);
  for (int token = 0; token < 100; ++token) ASSERT_TRUE(engine.append(0, 1));
  const std::uint64_t records = engine.cache().account().record_bytes;
  ASSERT_EQ(engine.cache().edit_rows(
                engine.store(0, Side::kKey), 0, [](std::uint32_t) { return true; },
                [](HalfBits* rows, std::span<const std::uint32_t> cells) {
                  for (std::size_t at = 0; at < cells.size() * FakeEngine::kRow; ++at) {
                    rows[at] = float_to_half(-half_to_float(rows[at]));
                  }
                }),
            Status::kOk);
  EXPECT_EQ(engine.cache().account().record_bytes, records);
  const auto row = read(engine, 0, Side::kKey, 20);
  const auto& original = engine.written(0, Side::kKey, 20);
  for (std::size_t at = 0; at < row.size(); ++at) {
    EXPECT_NEAR(half_to_float(row[at]), -half_to_float(original[at]), 0.08f);
  }
}

}  // namespace
}  // namespace kvarn
