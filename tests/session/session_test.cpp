// A sequence that went through a session goes on as if it had never left its cache: copied or mapped, whatever state
// its tiles were in, wherever its cells are.
#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "session_fixture.hpp"

namespace kvarn {
namespace {

constexpr auto kOff = FakeEngine::Check::kOff;
constexpr Session::Records kBoth[] = {Session::Records::kCopied, Session::Records::kMapped};

void append_together(FakeEngine& engine, std::uint32_t steps) {
  for (std::uint32_t step = 0; step < steps; ++step) ASSERT_TRUE(engine.decode({0, 1, 2}, {}, kOff));
}

void reuse_cells(FakeEngine& engine) {
  ASSERT_TRUE(engine.append(1, 270, kOff));
  ASSERT_TRUE(engine.append(0, 260, kOff));
  engine.remove(1);
  append_singly(engine, 0, 250);
}

void cut_and_go_on(FakeEngine& engine) {
  append_together(engine, 440);
  engine.roll_back(0, 37);
  append_singly(engine, 0, 50);
}

// The cut goes through a sealed tile, whose rows behind it stay dead.
void cut_deep_and_go_on(FakeEngine& engine) {
  append_singly(engine, 0, 480);
  engine.roll_back(0, 250);
  append_singly(engine, 0, 100);
}

void window(FakeEngine& engine) {
  engine.set_window(100);
  for (int token = 0; token < 300; ++token) {
    ASSERT_TRUE(engine.append(0, 1, kOff));
    if (engine.length(0) > 110) engine.drop_oldest(0);
  }
}

struct Case {
  const char* name;
  void (*run)(FakeEngine&);
};
const Case kCases[] = {
    {"too short to be sealed", [](FakeEngine& engine) { append_singly(engine, 0, 120); }},
    {"one micro-batch", [](FakeEngine& engine) { ASSERT_TRUE(engine.append(0, 480, kOff)); }},
    {"token by token", [](FakeEngine& engine) { append_singly(engine, 0, 470); }},
    {"interleaved", [](FakeEngine& engine) { append_together(engine, 450); }},
    {"cells used again", reuse_cells},
    {"cut and gone on", cut_and_go_on},
    {"cut inside a sealed tile", cut_deep_and_go_on},
    {"while a tile is sealed layer by layer", [](FakeEngine& engine) { append_singly(engine, 0, 64 * 8); }},
    {"one token", [](FakeEngine& engine) { append_singly(engine, 0, 1); }},
    {"sliding window", window},
};

TEST(Session, LoadedSequence_GoesOnLikeTheOneThatWasSaved) {
  for (const char* preset : {"f16", "k8v8", "k4v4", "k3v2", "k3v3+bytes"}) {
    for (const Case& scenario : kCases) {
      FakeEngine source(wide_tiles(preset), kCells, 1);
      use_text(source);
      ASSERT_NO_FATAL_FAILURE(scenario.run(source));
      const auto session = open_bytes(sent_bytes(source, 0));
      ASSERT_TRUE(session.ok()) << session_status_text(session.status());
      FakeEngine copied(wide_tiles(preset), kCells, 2);
      FakeEngine mapped(wide_tiles(preset), kCells, 3);
      SCOPED_TRACE(std::string(preset) + ", " + scenario.name);
      for (FakeEngine* target : {&copied, &mapped}) {
        use_text(*target);
        if (std::string(scenario.name) == "sliding window") target->set_window(100);
        ASSERT_TRUE(target->append(3, 21, kOff));  // other cells than before
        ASSERT_EQ(load(session.value(), *target, 0, kBoth[target == &mapped]), SessionStatus::kOk);
        expect_same_sequence(*target, source);
      }
      for (FakeEngine* engine : {&source, &copied, &mapped}) append_singly(*engine, 0, 130);
      expect_same_sequence(copied, source);
      expect_same_sequence(mapped, source);
    }
  }
}

TEST(Session, SavedSequence_GoesOnAsIfItHadNot) {
  FakeEngine saved(wide_tiles("k4v4"), kCells, 1);
  FakeEngine unsaved(wide_tiles("k4v4"), kCells, 1);
  for (FakeEngine* engine : {&saved, &unsaved}) {
    use_text(*engine);
    for (int part = 0; part < 8; ++part) {
      append_singly(*engine, 0, 60);
      if (engine == &saved) (void)sent_bytes(saved, 0);
    }
  }
  expect_same_sequence(saved, unsaved);
}

TEST(Session, SavedFromALoadedCache_IsTheSameBytes) {
  FakeEngine source(wide_tiles("k4v4"), kCells, 4);
  use_text(source);
  append_together(source, 400);
  const std::vector<std::uint8_t> bytes = sent_bytes(source, 0);
  const auto session = open_bytes(bytes);
  ASSERT_TRUE(session.ok());
  for (const Session::Records records : kBoth) {
    FakeEngine target(wide_tiles("k4v4"), kCells, 5);
    ASSERT_EQ(load(session.value(), target, 0, records), SessionStatus::kOk);
    EXPECT_TRUE(sent_bytes(target, 0) == bytes);
  }
}

TEST(Session, LoadedAttention_MatchesTheReference) {
  FakeEngine source(small_tiles("k4v4"), kCells, 6);
  append_together(source, 150);
  const auto session = open_bytes(sent_bytes(source, 0));
  ASSERT_TRUE(session.ok());
  for (const Session::Records records : kBoth) {
    FakeEngine target(small_tiles("k4v4"), kCells, 7);
    ASSERT_EQ(load(session.value(), target, 0, records), SessionStatus::kOk);
    ASSERT_TRUE(target.append(0, 20));
    EXPECT_GT(target.compared(), 0u);
    EXPECT_EQ(target.mismatches(), 0u);
  }
}

TEST(Session, TokensAndPositions_ComeBackInTheOrderOfTheCellsThatLoadTakes) {
  FakeEngine source(small_tiles("k4v4"), kCells, 8);
  append_together(source, 90);
  const std::vector<SessionToken> saved = tokens_of(source, 1);
  const auto session = open_bytes(sent_bytes(source, 1));
  ASSERT_TRUE(session.ok());
  const auto tokens = session.value().tokens(0);
  ASSERT_TRUE(tokens.ok());
  ASSERT_EQ(tokens.value().size(), saved.size());
  for (std::size_t at = 0; at < saved.size(); ++at) {
    EXPECT_EQ(tokens.value()[at].id, saved[at].id);
    EXPECT_EQ(tokens.value()[at].position, saved[at].position);
  }
}

TEST(Session, MappedRecords_OutliveTheSessionAndItsFile) {
  FakeEngine source(small_tiles("k4v4"), kCells, 9);
  use_text(source);
  append_singly(source, 0, 200);
  FakeEngine target(small_tiles("k4v4"), kCells, 10);
  use_text(target);
  {
    const auto session = open_bytes(sent_bytes(source, 0));
    ASSERT_TRUE(session.ok());
    ASSERT_EQ(load(session.value(), target, 0, Session::Records::kMapped), SessionStatus::kOk);
  }
  for (FakeEngine* engine : {&source, &target}) append_singly(*engine, 0, 40);
  expect_same_sequence(target, source);
}

TEST(Session, MappedRecords_CountAsForeignUntilTheyAreDropped) {
  FakeEngine source(small_tiles("k4v4"), kCells, 11);
  append_singly(source, 0, 200);
  const auto session = open_bytes(sent_bytes(source, 0));
  ASSERT_TRUE(session.ok());
  FakeEngine target(small_tiles("k4v4"), kCells, 12);
  ASSERT_EQ(load(session.value(), target, 0, Session::Records::kMapped), SessionStatus::kOk);
  EXPECT_EQ(target.cache().account().record_bytes, 0u);
  EXPECT_EQ(target.cache().account().foreign_bytes, source.cache().account().record_bytes);
  target.clear();
  EXPECT_EQ(target.cache().account().foreign_bytes, 0u);
}

TEST(Session, MappedTiles_AreCopiedWhenTheyAreEdited) {
  FakeEngine source(small_tiles("k4v4"), kCells, 13);
  append_singly(source, 0, 150);
  const std::vector<std::uint8_t> bytes = sent_bytes(source, 0);
  const auto session = open_bytes(bytes);
  ASSERT_TRUE(session.ok());
  FakeEngine target(small_tiles("k4v4"), kCells, 14);
  ASSERT_EQ(load(session.value(), target, 0, Session::Records::kMapped), SessionStatus::kOk);
  for (FakeEngine* engine : {&source, &target}) {
    const auto negate = [](HalfBits* rows, std::span<const std::uint32_t> cells) {
      for (std::size_t at = 0; at < cells.size() * FakeEngine::kRow; ++at) rows[at] ^= 0x8000u;
    };
    ASSERT_EQ(engine->cache().edit_rows(
                  engine->store(0, Side::kKey), 0, [](std::uint32_t) { return true; }, negate),
              Status::kOk);
  }
  expect_same_sequence(target, source);
  EXPECT_EQ(session.value().verify(), SessionStatus::kOk);
}

TEST(Session, CopiedStream_SharesMappedRecordsAndKeepsThem) {
  FakeEngine source(small_tiles("k4v4"), kCells, 15, 2);
  append_singly(source, 0, 150);
  const auto session = open_bytes(sent_bytes(source, 0));
  ASSERT_TRUE(session.ok());
  FakeEngine target(small_tiles("k4v4"), kCells, 16, 2);
  ASSERT_EQ(load(session.value(), target, 0, Session::Records::kMapped), SessionStatus::kOk);
  const std::uint64_t before = target.cache().account().foreign_bytes;
  target.cache().copy_stream(0, 1);
  EXPECT_EQ(target.cache().account().foreign_bytes, before);
  std::vector<HalfBits> first(FakeEngine::kRow), second(FakeEngine::kRow);
  const std::uint32_t cell = target.cells_of(0)[40];
  ASSERT_FALSE(target.cache().records_at(0, 0, cell).empty());
  target.cache().read_row(0, 0, cell, first.data());
  target.cache().drop_cells(0, target.cells_of(0));
  EXPECT_FALSE(target.cache().written(0, cell));
  target.cache().read_row(0, 1, cell, second.data());
  EXPECT_EQ(second, first);
}

// A fork in the same stream shares whole tiles; the last, shared in part, goes as the rows that belong to the sequence.
TEST(Session, TileSharedWithOthers_CarriesNothingOfTheirs) {
  FakeEngine source(small_tiles("k4v4"), kCells, 17);
  append_singly(source, 0, 100);
  source.fork(0, 1);
  source.roll_back(1, 60);
  const auto session = open_bytes(sent_bytes(source, 1));
  ASSERT_TRUE(session.ok());
  const auto tiles = session.value().tiles(0);
  ASSERT_TRUE(tiles.ok());
  ASSERT_EQ(tiles.value().size(), 3u);  // 40 tokens in tiles of 16
  const SessionTile& last = tiles.value().back();
  EXPECT_EQ(last.tokens.size(), 8u);
  for (const SessionTile::Item& item : last.items) EXPECT_EQ(item.entry.kind, static_cast<int>(ItemKind::kRows));
  FakeEngine target(small_tiles("k4v4"), kCells, 18);
  ASSERT_EQ(load(session.value(), target, 1, Session::Records::kCopied), SessionStatus::kOk);
  ASSERT_TRUE(target.append(1, 40));
  EXPECT_EQ(target.mismatches(), 0u);
}

TEST(Session, CacheWithOtherLayersWidthsOrTiles_RefusesIt) {
  FakeEngine source(small_tiles("k4v4"), kCells, 19);
  append_singly(source, 0, 100);
  const auto session = open_bytes(sent_bytes(source, 0));
  ASSERT_TRUE(session.ok());
  for (const CacheConfig& config : {small_tiles("k4v2"), small_tiles("k8v4"), config_of("k4v4", 32, 16, 16)}) {
    FakeEngine target(config, kCells, 20);
    EXPECT_EQ(load(session.value(), target, 0, Session::Records::kCopied), SessionStatus::kOtherShape);
    EXPECT_EQ(target.cache().account().cells_in_use, 0u);
  }
  KvCache fewer(small_tiles("k4v4"), 1, kCells);
  fewer.add_store(Side::kKey, 0, FakeEngine::kRow);
  std::vector<std::uint32_t> cells(100);
  for (std::uint32_t at = 0; at < 100; ++at) cells[at] = at;
  EXPECT_EQ(session.value().load(0, fewer, 0, cells, Session::Records::kCopied), SessionStatus::kOtherShape);
  FakeEngine target(small_tiles("k4v4"), kCells, 21);
  cells.pop_back();
  EXPECT_EQ(session.value().load(0, target.cache(), 0, cells, Session::Records::kCopied), SessionStatus::kTooFewCells);
  cells.push_back(cells.back());  // a cell twice
  EXPECT_EQ(session.value().load(0, target.cache(), 0, cells, Session::Records::kCopied), SessionStatus::kOtherShape);
  EXPECT_EQ(session.value().load(1, target.cache(), 0, cells, Session::Records::kCopied),
            SessionStatus::kInvalidArgument);
}

TEST(Session, CellsWithoutTokens_AreNotSaved) {
  FakeEngine source(small_tiles("k4v4"), kCells, 22);
  append_singly(source, 0, 20);
  std::vector<SessionToken> tokens = tokens_of(source, 0);
  const SessionPart part{&source.cache(), 0, tokens};
  const ByteSink sink{nullptr, [](void*, const std::uint8_t*, std::size_t) { return true; }};
  for (const std::uint32_t cell : {kCells - 1, kCells, tokens[0].cell}) {
    tokens.back().cell = cell;
    EXPECT_EQ(send_session({{&part, 1}, {}, {}}, sink).status(), SessionStatus::kInvalidArgument) << cell;
  }
}

TEST(Session, SeveralParts_ModelAndMetadata_ComeBack) {
  FakeEngine first(small_tiles("k4v4"), kCells, 23);
  FakeEngine second(wide_tiles("k2v2"), kCells, 24);
  append_singly(first, 0, 90);
  append_singly(second, 0, 300);
  const std::vector<SessionToken> tokens[] = {tokens_of(first, 0), tokens_of(second, 0)};
  const SessionPart parts[] = {{&first.cache(), 0, tokens[0]}, {&second.cache(), 0, tokens[1]}};
  std::vector<std::uint8_t> bytes;
  const ByteSink sink{&bytes, [](void* context, const std::uint8_t* data, std::size_t size) {
                        auto& out = *static_cast<std::vector<std::uint8_t>*>(context);
                        out.insert(out.end(), data, data + size);
                        return true;
                      }};
  ASSERT_TRUE(send_session({parts, text_bytes("a model"), text_bytes("state of a sampler")}, sink).ok());
  const auto session = open_bytes(bytes);
  ASSERT_TRUE(session.ok());
  const SessionIndex& index = session.value().index();
  EXPECT_EQ(std::string(index.model.begin(), index.model.end()), "a model");
  EXPECT_EQ(std::string(index.metadata.begin(), index.metadata.end()), "state of a sampler");
  ASSERT_EQ(index.parts.size(), 2u);
  EXPECT_EQ(index.parts[0].config, small_tiles("k4v4"));
  EXPECT_EQ(index.parts[1].config, wide_tiles("k2v2"));
  EXPECT_EQ(session.value().verify(), SessionStatus::kOk);
  FakeEngine target(wide_tiles("k2v2"), kCells, 25);
  const std::vector<std::uint32_t> cells = target.claim(0, std::vector<std::int64_t>(300));
  ASSERT_EQ(session.value().load(1, target.cache(), 0, cells, Session::Records::kCopied), SessionStatus::kOk);
  EXPECT_EQ(target.cache().account().record_bytes, second.cache().account().record_bytes);
}

TEST(Session, CacheThatNeverAttended_SavesItsRows) {
  FakeEngine source(small_tiles("k4v4"), kCells, 26);
  std::vector<HalfBits> row(FakeEngine::kRow, 0x3C00);
  for (std::uint32_t cell = 0; cell < 40; ++cell) {
    ASSERT_EQ(source.cache().write_row(0, 0, cell, row.data()), Status::kOk);
  }
  std::vector<SessionToken> tokens;
  for (std::uint32_t cell = 0; cell < 40; ++cell) tokens.push_back({cell, static_cast<std::int32_t>(cell), cell});
  const SessionPart part{&source.cache(), 0, tokens};
  std::vector<std::uint8_t> bytes;
  const ByteSink sink{&bytes, [](void* context, const std::uint8_t* data, std::size_t size) {
                        auto& out = *static_cast<std::vector<std::uint8_t>*>(context);
                        out.insert(out.end(), data, data + size);
                        return true;
                      }};
  ASSERT_TRUE(send_session({{&part, 1}, {}, {}}, sink).ok());
  const auto session = open_bytes(bytes);
  ASSERT_TRUE(session.ok());
  EXPECT_EQ(session.value().verify(), SessionStatus::kOk);
  FakeEngine target(small_tiles("k4v4"), kCells, 27);
  ASSERT_EQ(load(session.value(), target, 0, Session::Records::kMapped), SessionStatus::kOk);
  std::vector<HalfBits> read(FakeEngine::kRow);
  target.cache().read_row(0, 0, target.cells_of(0)[39], read.data());
  EXPECT_EQ(read, row);
  target.cache().read_row(1, 0, target.cells_of(0)[39], read.data());
  EXPECT_EQ(read, std::vector<HalfBits>(FakeEngine::kRow));
}

// What is remembered of queries is written once, however many tiles share it.
TEST(Session, SharedHistory_IsWrittenOnce) {
  FakeEngine source(small_tiles("k4v4"), kCells, 28);
  append_singly(source, 0, 600);
  const auto session = open_bytes(sent_bytes(source, 0));
  ASSERT_TRUE(session.ok());
  const auto tiles = session.value().tiles(0);
  ASSERT_TRUE(tiles.ok());
  std::size_t own = 0, shared = 0, bytes = 0;
  for (const SessionTile& tile : tiles.value()) {
    for (const SessionTile::Item& item : tile.items) {
      own += item.entry.kind == static_cast<int>(ItemKind::kHistory);
      shared += item.entry.kind == static_cast<int>(ItemKind::kSharedHistory);
      if (item.entry.kind == static_cast<int>(ItemKind::kHistory)) bytes += item.entry.bytes;
    }
  }
  EXPECT_GT(own, 0u);
  EXPECT_GT(shared, own);
  EXPECT_LE(bytes, source.cache().account().moment_bytes);
}

}  // namespace
}  // namespace kvarn
