// Golden sessions: the same bytes on every machine, readable for good, and attention over them with the same bits.
#include "golden_session.hpp"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>

#include "base/checksum.hpp"

namespace kvarn::testing {
namespace {

std::string golden_path(const std::string& name) { return std::string(KVARN_GOLDEN_DIRECTORY) + "/" + name; }

std::vector<std::uint8_t> golden_bytes(const std::string& name) {
  std::ifstream file(golden_path(name), std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

struct Expected {
  const char* name;
  EncoderLevel level;
  RecordVersion version;
  // Of all rows, store by store (tests/golden/session_reader_test.py has the same), and of the output for the newest
  // of 20 more tokens.
  std::uint64_t rows_digest, output_digest;
};
// The digests of outputs are those of the machine that wrote the files (x86-64, AVX-512).
constexpr Expected kExpected[] = {
    {"scaled.session", EncoderLevel::kScaled, RecordVersion::kHalves, 13453162074413820943u, 817430277227750499u},
    {"best_two_commits.session", EncoderLevel::kBest, RecordVersion::kHalves, 7964580979804663358u,
     18377600553801308398u},
    {"best_byte_fields.session", EncoderLevel::kBest, RecordVersion::kBytes, 5096330185495789668u,
     11389025360018925358u},
};

TEST(GoldenSession, IsWrittenTheSameHere) {
  const auto sessions = golden_sessions(::testing::TempDir() + "kvarn_golden_scratch");
  ASSERT_EQ(sessions.size(), std::size(kExpected));
  for (const GoldenSession& session : sessions) {
    EXPECT_TRUE(session.bytes == golden_bytes(session.name)) << session.name;
  }
}

TEST(GoldenSession, IsWholeAndHoldsEveryKindOfContent) {
  std::uint32_t kinds = 0;
  for (const Expected& expected : kExpected) {
    const auto session = Session::open(golden_path(expected.name).c_str());
    ASSERT_TRUE(session.ok()) << expected.name;
    EXPECT_EQ(session.value().verify(), SessionStatus::kOk) << expected.name;
    const auto tiles = session.value().tiles(0);
    ASSERT_TRUE(tiles.ok());
    for (const SessionTile& tile : tiles.value()) {
      for (const SessionTile::Item& item : tile.items) kinds |= 1u << item.entry.kind;
    }
  }
  EXPECT_EQ(kinds, 0b1111110u);
}

// The second reader (tests/golden/session_reader.py) finds the same rows.
TEST(GoldenSession, RowsAreThoseOfTheSecondReader) {
  for (const Expected& expected : kExpected) {
    const auto session = Session::open(golden_path(expected.name).c_str());
    ASSERT_TRUE(session.ok());
    GoldenEngine engine(expected.level, expected.version);
    ASSERT_EQ(engine.load(session.value(), Session::Records::kCopied), SessionStatus::kOk);
    std::vector<std::uint8_t> rows;
    std::vector<HalfBits> row(GoldenEngine::kKvHeads * GoldenEngine::kDim);
    for (StoreId store = 0; store < 2 * GoldenEngine::kLayers; ++store) {
      for (std::uint32_t token = 0; token < engine.length(); ++token) {
        engine.cache().read_row(store, 0, token, row.data());
        put_span(rows, {reinterpret_cast<const std::uint8_t*>(row.data()), row.size() * sizeof(HalfBits)});
      }
    }
    EXPECT_EQ(checksum(rows), expected.rows_digest) << expected.name;
  }
}

// Attention over a loaded session has the same bits with every instruction set.
TEST(GoldenSession, AttentionOverIt_HasTheSameBitsEverywhere) {
  for (const Expected& expected : kExpected) {
    const auto session = Session::open(golden_path(expected.name).c_str());
    ASSERT_TRUE(session.ok());
    for (const auto records : {Session::Records::kCopied, Session::Records::kMapped}) {
      GoldenEngine engine(expected.level, expected.version);
      ASSERT_EQ(engine.load(session.value(), records), SessionStatus::kOk);
      engine.append(20);
      std::vector<std::uint8_t> bits(engine.newest_output().size() * sizeof(float));
      std::memcpy(bits.data(), engine.newest_output().data(), bits.size());
      EXPECT_EQ(checksum(bits), expected.output_digest) << expected.name;
    }
  }
}

}  // namespace
}  // namespace kvarn::testing
