#include "cache/cache_config.hpp"

#include <gtest/gtest.h>

namespace kvarn {
namespace {

TEST(CacheConfig, KnownPreset_SetsWidthsOfBothSides) {
  CacheConfig config;
  ASSERT_EQ(apply_preset("k6v3", config), Status::kOk);
  EXPECT_EQ(config.k_bits, 6u);
  EXPECT_EQ(config.v_bits, 3u);
  EXPECT_FALSE(config.exact);
}

TEST(CacheConfig, PresetF16_KeepsEveryTileExact) {
  CacheConfig config;
  ASSERT_EQ(apply_preset("f16", config), Status::kOk);
  EXPECT_TRUE(config.exact);
}

TEST(CacheConfig, NamedPreset_SetsWidthsAndTail) {
  for (const NamedPreset& named : kNamedPresets) {
    CacheConfig config;
    config.tail_tokens = 0;
    config.seals_own_rows = true;
    config.level = EncoderLevel::kOfficial;
    ASSERT_EQ(apply_preset(named.name, config), Status::kOk);
    EXPECT_EQ(config.k_bits, named.k_bits);
    EXPECT_EQ(config.v_bits, named.v_bits);
    EXPECT_EQ(config.tail_tokens, named.tail_tokens);
    EXPECT_EQ(config.level, EncoderLevel::kOfficial);
    EXPECT_EQ(validate(config), Status::kOk) << named.name;
  }
}

TEST(CacheConfig, LevelThatIsNotNamed_IsBestBelowEightBits) {
  for (const std::uint32_t bits : {8u, 6u, 5u, 4u, 3u, 2u}) {
    CacheConfig config;
    config.k_bits = bits;
    EXPECT_EQ(config.k_level(), bits < 8 ? EncoderLevel::kBest : EncoderLevel::kFast);
    EXPECT_EQ(config.v_level(), EncoderLevel::kBest);
    EXPECT_EQ(config.keeps_queries(), bits < 8);
    config.level = EncoderLevel::kScaled;
    EXPECT_EQ(config.k_level(), EncoderLevel::kScaled);
    EXPECT_EQ(config.v_level(), EncoderLevel::kScaled);
    EXPECT_FALSE(config.keeps_queries());
  }
}

TEST(CacheConfig, Balanced_IsTheDefault) {
  CacheConfig config;
  ASSERT_EQ(apply_preset("balanced", config), Status::kOk);
  EXPECT_EQ(config, CacheConfig{});
}

TEST(CacheConfig, UnknownPreset_IsRefusedAndChangesNothing) {
  for (const char* preset : {"", "k4", "k4v", "k4v7", "k1v4", "k44v4", "K4V4", "q4_0", "k4v4 ", "k9v9", "v4k4"}) {
    CacheConfig config;
    EXPECT_EQ(apply_preset(preset, config), Status::kInvalidArgument) << preset;
    EXPECT_EQ(config, CacheConfig{}) << preset;
  }
}

TEST(CacheConfig, TileLength_MustBeAMultipleOf16UpTo256) {
  for (const std::uint32_t tokens : {0u, 8u, 24u, 272u}) {
    CacheConfig config;
    config.tile_tokens = tokens;
    EXPECT_EQ(validate(config), Status::kInvalidArgument) << tokens;
  }
  CacheConfig config;
  config.tile_tokens = 256;
  EXPECT_EQ(validate(config), Status::kOk);
}

TEST(CacheConfig, SealingOwnRows_AllowsNoTail) {
  CacheConfig config;
  config.seals_own_rows = true;
  EXPECT_EQ(validate(config), Status::kInvalidArgument);
  config.tail_tokens = 0;
  EXPECT_EQ(validate(config), Status::kOk);
}

TEST(CacheConfig, KnownCodec_SetsBothSidesOrEach) {
  CacheConfig config;
  ASSERT_EQ(apply_codec("q5_0", config), Status::kOk);
  EXPECT_EQ(config.k_baseline, BaselineFormat::kQ5_0);
  EXPECT_EQ(config.v_baseline, BaselineFormat::kQ5_0);
  ASSERT_EQ(apply_codec("q8_0/kvarn", config), Status::kOk);
  EXPECT_EQ(config.k_baseline, BaselineFormat::kQ8_0);
  EXPECT_EQ(config.v_baseline, BaselineFormat::kNone);
  ASSERT_EQ(apply_codec("kvarn", config), Status::kOk);
  EXPECT_EQ(config, CacheConfig{});
}

TEST(CacheConfig, UnknownCodec_IsRefusedAndChangesNothing) {
  for (const char* codec : {"", "/", "q4_1", "q8_0/", "/q8_0", "q8_0/q4_0/q4_0", "Q8_0", "q8_0 "}) {
    CacheConfig config;
    EXPECT_EQ(apply_codec(codec, config), Status::kInvalidArgument) << codec;
    EXPECT_EQ(config, CacheConfig{}) << codec;
  }
}

TEST(CacheConfig, FieldsOfOneByte_AreForLevelsThatSearch) {
  CacheConfig config;
  config.version = RecordVersion::kBytes;
  EXPECT_EQ(validate(config), Status::kOk);
  for (const EncoderLevel level : {EncoderLevel::kFast, EncoderLevel::kBest}) {
    config.level = level;
    EXPECT_EQ(validate(config), Status::kOk);
  }
  for (const EncoderLevel level : {EncoderLevel::kOfficial, EncoderLevel::kScaled, EncoderLevel::kPlain}) {
    config.level = level;
    EXPECT_EQ(validate(config), Status::kInvalidArgument);
  }
  EXPECT_EQ(record_version("half"), RecordVersion::kHalves);
  EXPECT_EQ(record_version("byte"), RecordVersion::kBytes);
  EXPECT_EQ(record_version("bytes"), std::nullopt);
}

}  // namespace
}  // namespace kvarn
