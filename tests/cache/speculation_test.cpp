// Speculative decoding as an engine does it: a micro-batch of one certain token and drafts behind it, then a cut behind
// the accepted ones, whose cells are written anew. What is sealed must be what a run without drafts seals, whatever was
// rejected where.
#include <gtest/gtest.h>

#include <algorithm>
#include <ostream>
#include <tuple>
#include <vector>

#include "fake_engine.hpp"

namespace kvarn {
namespace {

constexpr std::uint32_t kTile = 16;
constexpr std::uint32_t kTokens = 6 * kTile + 5;
constexpr std::uint32_t kTrueText = 1;
constexpr std::uint32_t kRejectedText = 2;

struct Speculation {
  const char* preset;
  EncoderLevel level;
  std::uint32_t tail;
  std::uint32_t drafts;  // behind every certain token
};

void PrintTo(const Speculation& speculation, std::ostream* out) {
  *out << speculation.preset << " level " << static_cast<int>(speculation.level) << " tail " << speculation.tail
       << " drafts " << speculation.drafts;
}

CacheConfig config_of(const Speculation& speculation) {
  CacheConfig config = kvarn::config_of(speculation.preset, kTile, 0, speculation.tail);
  config.level = speculation.level;
  return config;
}

// Grows the sequence by at least one token with every micro-batch; position % (drafts + 1) of the drafts are accepted,
// so that cuts fall on every row of a tile and drafts reach over its end. Checks at every cut that no record holds a
// row that was cut off.
void speculate(FakeEngine& engine, std::uint32_t drafts, std::uint32_t until) {
  std::int64_t true_end = 0;
  engine.set_text([&](int, std::int64_t position) { return position < true_end ? kTrueText : kRejectedText; });
  for (std::uint32_t length = 0; length < until;) {
    const std::uint32_t accepted = std::min(length % (drafts + 1), until - length - 1);
    true_end = length + 1 + accepted;
    ASSERT_TRUE(engine.append(0, 1 + drafts));
    engine.roll_back(0, drafts - accepted);
    length += 1 + accepted;
    ASSERT_LE(engine.cache().account().sealed_tokens, length);
  }
}

std::vector<std::vector<HalfBits>> all_rows(FakeEngine& engine) {
  std::vector<std::vector<HalfBits>> rows;
  for (const std::uint32_t cell : engine.cells_of(0)) {
    for (std::uint32_t layer = 0; layer < FakeEngine::kLayers; ++layer) {
      for (const Side side : {Side::kKey, Side::kValue}) {
        rows.emplace_back(FakeEngine::kRow);
        engine.cache().read_row(engine.store(layer, side), 0, cell, rows.back().data());
      }
    }
  }
  return rows;
}

class Drafts : public testing::TestWithParam<Speculation> {};

TEST_P(Drafts, RejectedAtEveryRowOfATile_LeaveTheRecordsOfARunWithoutDrafts) {
  const Speculation& speculation = GetParam();
  FakeEngine plain(config_of(speculation), 512, 1);
  plain.set_text([](int, std::int64_t) { return kTrueText; });
  for (std::uint32_t token = 0; token < kTokens; ++token) ASSERT_TRUE(plain.append(0, 1));
  FakeEngine drafting(config_of(speculation), 512, 1);
  ASSERT_NO_FATAL_FAILURE(speculate(drafting, speculation.drafts, kTokens));
  drafting.set_text([](int, std::int64_t) { return kTrueText; });
  for (FakeEngine* engine : {&plain, &drafting}) ASSERT_TRUE(engine->append(0, 1));  // a last look at what is due

  ASSERT_EQ(drafting.length(0), plain.length(0));
  EXPECT_EQ(drafting.cache().account().sealed_tokens, plain.cache().account().sealed_tokens);
  EXPECT_GE(plain.cache().account().sealed_tokens, 3 * kTile);
  EXPECT_EQ(all_rows(drafting), all_rows(plain));
  EXPECT_EQ(drafting.mismatches(), 0u);
}

std::vector<Speculation> speculations() {
  std::vector<Speculation> all;
  for (const auto& [preset, level] :
       {std::tuple{"k8v8", EncoderLevel::kFast}, {"k4v4", EncoderLevel::kBest}, {"k2v2", EncoderLevel::kBest}}) {
    for (const std::uint32_t tail : {0u, 5u, 16u}) {
      for (const std::uint32_t drafts : {1u, 3u, 5u, 16u, 20u}) all.push_back({preset, level, tail, drafts});
    }
  }
  return all;
}

INSTANTIATE_TEST_SUITE_P(Speculation, Drafts, testing::ValuesIn(speculations()));

}  // namespace
}  // namespace kvarn
