// Session files from anywhere: every damaged one is refused by name or harmless, whether its checksums are right or
// not.
#include <gtest/gtest.h>

#include <cstddef>
#include <cstring>
#include <map>
#include <random>

#include "reseal.hpp"
#include "session_fixture.hpp"

namespace kvarn {
namespace {

constexpr auto kOff = FakeEngine::Check::kOff;

// What a load of a session that may be anything comes to; attention over what was loaded must at least be safe.
SessionStatus use(const std::vector<std::uint8_t>& bytes, Session::Records records) {
  const auto session = open_bytes(bytes);
  if (!session.ok()) return session.status();
  FakeEngine engine(small_tiles("k4v4"), kCells, 3);
  const auto tokens = session.value().tokens(0);
  if (!tokens.ok()) return tokens.status();
  if (tokens.value().size() > kCells) return SessionStatus::kTooFewCells;
  const SessionStatus status = load(session.value(), engine, 0, records);
  if (status != SessionStatus::kOk) {
    EXPECT_EQ(engine.cache().account().cells_in_use, 0u);
    EXPECT_EQ(engine.cache().account().held_bytes(), 0u);
  }
  return status;
}

std::vector<std::uint8_t> sample_session() {
  FakeEngine engine(small_tiles("k4v4"), kCells, 1);
  use_text(engine);
  append_singly(engine, 0, 90);
  return sent_bytes(engine, 0);
}

// The text of a status is its own, and none is the one for what has no name.
TEST(SessionDamage, EveryStatus_HasATextOfItsOwn) {
  std::map<std::string, int> texts;
  for (int status = 0; status <= static_cast<int>(SessionStatus::kCutShort); ++status) {
    ++texts[session_status_text(static_cast<SessionStatus>(status))];
  }
  EXPECT_EQ(texts.size(), static_cast<std::size_t>(SessionStatus::kCutShort) + 1);
  EXPECT_EQ(texts.count("unknown status"), 0u);
}

TEST(SessionDamage, FlippedBits_AreFoundWhereTheyAre) {
  const std::vector<std::uint8_t> bytes = sample_session();
  const auto session = open_bytes(bytes);
  ASSERT_TRUE(session.ok());
  const auto tiles = session.value().tiles(0);
  ASSERT_TRUE(tiles.ok());
  const auto status_of_flip = [&](std::size_t offset) {
    std::vector<std::uint8_t> damaged = bytes;
    damaged[offset] ^= 4;
    const auto opened = open_bytes(damaged);
    return opened.ok() ? opened.value().verify() : opened.status();
  };
  EXPECT_EQ(status_of_flip(0), SessionStatus::kNotASession);
  EXPECT_EQ(status_of_flip(8), SessionStatus::kUnknownVersion);
  EXPECT_EQ(status_of_flip(16), SessionStatus::kDamagedHeader);
  EXPECT_EQ(status_of_flip(bytes.size() - 40), SessionStatus::kNoCommit);
  EXPECT_EQ(status_of_flip(bytes.size() - 200), SessionStatus::kDamagedIndex);
  EXPECT_EQ(status_of_flip(session.value().index().parts[0].tiles[2].offset + 9), SessionStatus::kDamagedTile);
  std::map<int, SessionStatus> by_kind;
  for (const SessionTile& tile : tiles.value()) {
    for (const SessionTile::Item& item : tile.items) {
      if (item.bytes.empty()) continue;
      const auto offset = static_cast<std::size_t>(item.bytes.data() - session.value().bytes().data());
      by_kind[item.entry.kind] = status_of_flip(offset + item.bytes.size() / 2);
    }
  }
  EXPECT_EQ(by_kind[static_cast<int>(ItemKind::kRecords)], SessionStatus::kDamagedRecord);
  EXPECT_EQ(by_kind[static_cast<int>(ItemKind::kRows)], SessionStatus::kDamagedRows);
  EXPECT_EQ(by_kind[static_cast<int>(ItemKind::kHistory)], SessionStatus::kDamagedHistory);
  EXPECT_EQ(by_kind[static_cast<int>(ItemKind::kSamples)], SessionStatus::kDamagedSamples);
}

// Mapped records are looked at by the first attention: it computes nothing then, and goes on once the sequence is gone.
TEST(SessionDamage, MappedRecord_IsRefusedByTheFirstAttention) {
  std::vector<std::uint8_t> bytes = sample_session();
  {
    const auto session = open_bytes(bytes);
    ASSERT_TRUE(session.ok());
    const auto tiles = session.value().tiles(0);
    ASSERT_TRUE(tiles.ok());
    const SessionTile::Item* record = nullptr;
    for (const SessionTile& tile : tiles.value()) {
      for (const SessionTile::Item& item : tile.items) {
        if (item.entry.kind == static_cast<int>(ItemKind::kRecords) && item.entry.store == 0) record = &item;
      }
    }
    ASSERT_NE(record, nullptr);
    bytes[static_cast<std::size_t>(record->bytes.data() - session.value().bytes().data()) + 50] ^= 1;
  }
  const auto session = open_bytes(bytes);
  ASSERT_TRUE(session.ok());
  FakeEngine engine(small_tiles("k4v4"), kCells, 2);
  EXPECT_EQ(load(session.value(), engine, 0, Session::Records::kCopied), SessionStatus::kDamagedRecord);
  ASSERT_EQ(load(session.value(), engine, 0, Session::Records::kMapped), SessionStatus::kOk);
  const std::vector<std::uint32_t> cells = engine.cells_of(0);
  std::vector<HalfBits> mask(128, 0);
  const BatchMask batch{mask.data(), mask.size(), mask.size(), 0, 1, 1, 128};
  std::vector<float> q(FakeEngine::kHeads * FakeEngine::kDim, 1.0f), out(q.size(), -1.0f);
  const AttentionTensors tensors{q.data(), 0, q.size(), FakeEngine::kDim, out.data(), 0, q.size(), FakeEngine::kDim};
  const HeadCounts counts{FakeEngine::kHeads, FakeEngine::kKvHeads, FakeEngine::kDim, FakeEngine::kDim};
  const auto attend = [&](std::uint32_t layer) {
    return engine.cache().attend(engine.store(layer, Side::kKey), engine.store(layer, Side::kValue), counts, {}, batch,
                                 tensors, Runner{});
  };
  EXPECT_EQ(attend(0), Status::kCorrupt);
  EXPECT_EQ(out, std::vector<float>(q.size(), -1.0f));
  EXPECT_EQ(attend(1), Status::kOk);
  engine.cache().drop_cells(0, cells);
  EXPECT_EQ(attend(0), Status::kOk);
}

TEST(SessionDamage, RandomMutations_AreRefusedOrHarmless) {
  const std::vector<std::uint8_t> bytes = sample_session();
  std::mt19937 random(7);
  int refused = 0;
  for (int mutation = 0; mutation < 10000; ++mutation) {
    std::vector<std::uint8_t> damaged = mutated(bytes, random);
    const SessionStatus status =
        use(damaged, mutation % 2 == 0 ? Session::Records::kCopied : Session::Records::kMapped);
    refused += status != SessionStatus::kOk;
  }
  EXPECT_GT(refused, 5000);
}

// Whoever makes up a file computes its checksums too: what is behind them is checked as well.
TEST(SessionDamage, MutationsUnderRightChecksums_AreRefusedOrHarmless) {
  const std::vector<std::uint8_t> bytes = sample_session();
  std::mt19937 random(8);
  std::map<SessionStatus, int> seen;
  for (int mutation = 0; mutation < 10000; ++mutation) {
    std::vector<std::uint8_t> damaged = mutated(bytes, random);
    reseal(damaged);
    const auto session = open_bytes(damaged);
    ++seen[session.ok() ? session.value().verify() : session.status()];
    (void)use(damaged, mutation % 2 == 0 ? Session::Records::kCopied : Session::Records::kMapped);
  }
  EXPECT_GT(seen[SessionStatus::kOk], 0);
  EXPECT_GT(seen[SessionStatus::kDamagedIndex], 0);
  EXPECT_GT(seen[SessionStatus::kDamagedTile], 0);
  EXPECT_GT(seen[SessionStatus::kDamagedRecord], 0);
  EXPECT_GT(seen[SessionStatus::kDamagedHistory], 0);
}

// What passes for a session under right checksums is attended to without harm.
TEST(SessionDamage, MadeUpSessions_AreSafeToGoOnWith) {
  const std::vector<std::uint8_t> bytes = sample_session();
  std::mt19937 random(9);
  int loaded = 0;
  for (int mutation = 0; mutation < 400; ++mutation) {
    std::vector<std::uint8_t> damaged = mutated(bytes, random);
    reseal(damaged);
    const auto session = open_bytes(damaged);
    if (!session.ok()) continue;
    FakeEngine engine(small_tiles("k4v4"), kCells, 3);
    const auto tokens = session.value().tokens(0);
    if (!tokens.ok() || tokens.value().size() > kCells) continue;
    const std::vector<std::uint32_t> cells = engine.claim(0, std::vector<std::int64_t>(tokens.value().size()));
    if (session.value().load(0, engine.cache(), 0, cells, Session::Records::kCopied) != SessionStatus::kOk) continue;
    ++loaded;
    for (int step = 0; step < 12; ++step) ASSERT_TRUE(engine.append(0, 3, kOff));
  }
  EXPECT_GT(loaded, 20);
}

}  // namespace
}  // namespace kvarn
