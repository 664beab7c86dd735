// What names of caches mean, and which are refused.
#include "cache_choice.hpp"

#include <gtest/gtest.h>

#include "user_error.hpp"

namespace kvarn::bench {
namespace {

using Kind = CacheChoice::Kind;

TEST(CacheChoice, Preset_GivesWidthsAndLevel) {
  const CacheChoice choice = parse_cache_choice("k4v2@official:sink=0:tail=none");
  EXPECT_EQ(choice.kind, Kind::kKvarn);
  EXPECT_EQ(choice.codec, "kvarn");
  EXPECT_EQ(choice.k_bits, 4);
  EXPECT_EQ(choice.v_bits, 2);
  EXPECT_EQ(choice.level, "official");
  EXPECT_EQ(choice.sink_tokens, 0);
  EXPECT_EQ(choice.tail_tokens, kNoTail);
  EXPECT_EQ(choice.name(), "k4v2@official");
  EXPECT_EQ(choice.preset, "k4v2");
  EXPECT_EQ(choice.encoder_level(), "official");
  EXPECT_EQ(choice.key(), "k4v2@official:sink=0:tail=none");
}

TEST(CacheChoice, Records_CanBeChosenForEachCache) {
  const CacheChoice choice = parse_cache_choice("k4v4@fast:tile=32:tail=none:fields=byte");
  EXPECT_EQ(choice.tile_tokens, 32);
  EXPECT_EQ(choice.fields, "byte");
  EXPECT_EQ(choice.name(), "k4v4@fast:tile=32:fields=byte");
  EXPECT_EQ(choice.key(), "k4v4@fast:tile=32:fields=byte:tail=none");
  EXPECT_DOUBLE_EQ(nominal_bits_per_value(choice, 64, {}), 4.5625);
  EXPECT_EQ(parse_cache_choice("k4v4").tile_tokens, kUnset);
}

TEST(CacheChoice, NamedPreset_GivesItsWidthsAndLeavesTheRegime) {
  const CacheChoice choice = parse_cache_choice("near-lossless");
  EXPECT_EQ(choice.kind, Kind::kKvarn);
  EXPECT_EQ(choice.name(), "near-lossless");
  EXPECT_EQ(choice.k_bits, 6);
  EXPECT_EQ(choice.tail_tokens, kUnset);
  EXPECT_EQ(choice.encoder_level(), "best");
  EXPECT_EQ(parse_cache_choice("smallest").encoder_level(), "best");
  EXPECT_EQ(parse_cache_choice("k8v2").encoder_level(), "fast/best");
  EXPECT_EQ(parse_cache_choice("smallest@official").encoder_level(), "official");
  EXPECT_EQ(parse_cache_choice("q4_0").encoder_level(), "");
}

TEST(CacheChoice, Baseline_HasTheSameNameWithAndWithoutCodec) {
  const CacheChoice choice = parse_cache_choice("codec=q5_0:tail=64");
  EXPECT_EQ(choice.kind, Kind::kBaseline);
  EXPECT_EQ(choice.k_bits, 5);
  EXPECT_EQ(choice.tail_tokens, 64);
  EXPECT_EQ(choice.sink_tokens, kUnset);
  EXPECT_EQ(choice.key(), parse_cache_choice("q5_0:tail=64").key());
}

TEST(CacheChoice, HostCacheAndExactTiles_HaveNoExactTokens) {
  EXPECT_EQ(parse_cache_choice("host=q4_0").kind, Kind::kHost);
  EXPECT_EQ(parse_cache_choice("host=q4_0").name(), "host q4_0");
  EXPECT_EQ(parse_cache_choice("f16").kind, Kind::kExact);
  EXPECT_THROW(parse_cache_choice("host=q4_0:sink=1"), program::UserError);
  EXPECT_THROW(parse_cache_choice("f16:tail=1"), program::UserError);
}

TEST(CacheChoice, WhatNamesNoCache_IsRefused) {
  for (const char* text : {"",
                           "k4",
                           "k7v4",
                           "k4v1",
                           "k44v4",
                           "q4_1",
                           "host=",
                           "host=k4v4",
                           "k4v4@",
                           "k4v4:",
                           "k4v4:sink",
                           "k4v4:sink=",
                           "k4v4:sink=-1",
                           "k4v4:sink=none",
                           "k4v4:tail=1x",
                           "k4v4:head=1",
                           "k4v4:sink=2000000",
                           "k4v4:tile=",
                           "k4v4:tile=24",
                           "k4v4:tile=512",
                           "k4v4:fields=",
                           "k4v4:fields=word",
                           "q4_0:tile=32",
                           "host=q4_0:fields=byte"}) {
    EXPECT_THROW(parse_cache_choice(text), program::UserError) << text;
  }
}

TEST(CacheChoice, Regimes_FillInWhatIsNotGivenAndTouchTheHostOnce) {
  const std::vector<CacheChoice> choices = {parse_cache_choice("k4v4"), parse_cache_choice("k4v4:tail=7"),
                                            parse_cache_choice("host=f16")};
  const std::vector<CacheChoice> all = in_regimes(choices, {{.sink = 0, .tail = kNoTail}, {.sink = 128, .tail = 128}});
  std::vector<std::string> keys;
  for (const CacheChoice& choice : all) keys.push_back(choice.key());
  EXPECT_EQ(keys, (std::vector<std::string>{"k4v4:sink=0:tail=none", "k4v4:sink=0:tail=7", "host=f16",
                                            "k4v4:sink=128:tail=128", "k4v4:sink=128:tail=7"}));
}

// docs/format/: codes, two halves a row, one half a lane. Checked against the sizes given there.
TEST(CacheChoice, NominalBits_CountTheMetadata) {
  const auto bits = [](const char* text, std::uint32_t dim) {
    return nominal_bits_per_value(parse_cache_choice(text), dim, {});
  };
  EXPECT_DOUBLE_EQ(bits("k4v2", 128), 3.375);
  EXPECT_DOUBLE_EQ(bits("k4v4", 128), 4.375);
  EXPECT_DOUBLE_EQ(bits("k4v2", 64), 3.5625);
  EXPECT_DOUBLE_EQ(bits("q4_0", 64), 4.5);
  EXPECT_DOUBLE_EQ(bits("q8_0", 64), 8.5);
  EXPECT_DOUBLE_EQ(bits("host=q5_0", 64), 5.5);
  EXPECT_DOUBLE_EQ(bits("f16", 64), 16.0);
  EXPECT_DOUBLE_EQ(bits("host=f16", 64), 16.0);
}

TEST(CacheChoice, NominalBits_CountFieldsOfOneByte) {
  const auto bits = [](std::uint32_t dim, std::uint32_t tokens) {
    return nominal_bits_per_value(parse_cache_choice("k4v4"), dim, {tokens, RecordVersion::kBytes});
  };
  EXPECT_DOUBLE_EQ(bits(64, 128), 4.28125);
  EXPECT_DOUBLE_EQ(bits(64, 32), 4.5625);
  EXPECT_DOUBLE_EQ(bits(128, 128), 4.1875);
}

}  // namespace
}  // namespace kvarn::bench
