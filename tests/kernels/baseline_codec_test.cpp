#include "codec/baseline_codec.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace kvarn {
namespace {

constexpr BaselineFormat kFormats[] = {BaselineFormat::kQ8_0, BaselineFormat::kQ5_0, BaselineFormat::kQ4_0};

// The first values of a block, zeros behind them, as the format gives them back.
std::vector<float> rounded(BaselineFormat format, std::vector<float> values) {
  const std::size_t count = values.size();
  values.resize(kBaselineBlock);
  round_to_baseline(format, values.data(), values.size());
  values.resize(count);
  return values;
}

TEST(BaselineFormats, FourBits_LargestMagnitudeIsExactAndTheOtherEndIsCut) {
  EXPECT_EQ(rounded(BaselineFormat::kQ4_0, {4.0f, -4.0f, 3.5f, 0.24f, 0.25f, 0.26f, -0.24f, -0.25f}),
            (std::vector<float>{4.0f, -3.5f, 3.5f, 0.0f, 0.0f, 0.5f, 0.0f, -0.5f}));
  EXPECT_EQ(rounded(BaselineFormat::kQ4_0, {-4.0f, 4.0f, -0.25f, 0.25f}),
            (std::vector<float>{-4.0f, 3.5f, 0.0f, 0.5f}));
}

TEST(BaselineFormats, FiveBits_LargestMagnitudeIsExactAndTheOtherEndIsCut) {
  EXPECT_EQ(rounded(BaselineFormat::kQ5_0, {8.0f, -8.0f, 0.25f, -0.25f, -7.3f}),
            (std::vector<float>{8.0f, -7.5f, 0.0f, -0.5f, -7.5f}));
}

TEST(BaselineFormats, EightBits_HalvesGoAwayFromZero) {
  EXPECT_EQ(rounded(BaselineFormat::kQ8_0, {31.75f, -31.75f, 0.125f, -0.125f, 0.375f, 0.12f}),
            (std::vector<float>{31.75f, -31.75f, 0.25f, -0.25f, 0.5f, 0.0f}));
}

TEST(BaselineFormats, StepIsKeptInHalfPrecision) {
  EXPECT_EQ(rounded(BaselineFormat::kQ8_0, {1.0f})[0], 127.0f * half_to_float(float_to_half(1.0f / 127.0f)));
  EXPECT_EQ(rounded(BaselineFormat::kQ4_0, {0.1f})[0], -8.0f * half_to_float(float_to_half(0.1f / -8.0f)));
}

TEST(BaselineFormats, BlocksWithoutAStep_AreZeros) {
  for (const BaselineFormat format : kFormats) {
    for (const float value : {0.0f, 1e-9f, -1e-40f}) {
      EXPECT_EQ(rounded(format, std::vector<float>(kBaselineBlock, value)), std::vector<float>(kBaselineBlock, 0.0f));
    }
  }
}

TEST(BaselineFormats, Names_AreThoseOfTheHost) {
  EXPECT_EQ(baseline_format("q8_0"), BaselineFormat::kQ8_0);
  EXPECT_EQ(baseline_format("q5_0"), BaselineFormat::kQ5_0);
  EXPECT_EQ(baseline_format("q4_0"), BaselineFormat::kQ4_0);
  EXPECT_FALSE(baseline_format("q4_1"));
  EXPECT_EQ(baseline_bits_per_value(BaselineFormat::kQ8_0), 8.5);
  EXPECT_EQ(baseline_bits_per_value(BaselineFormat::kQ5_0), 5.5);
  EXPECT_EQ(baseline_bits_per_value(BaselineFormat::kQ4_0), 4.5);
}

TEST(BaselineRotation, KeysTurnTogetherAndValuesInBlocksOf64) {
  const std::uint32_t dims[] = {32, 64, 80, 96, 128, 192, 256, 576};
  const std::uint32_t keys[] = {0, 64, 0, 0, 128, 64, 256, 64};
  const std::uint32_t values[] = {0, 64, 0, 0, 64, 64, 64, 64};
  for (std::size_t at = 0; at < std::size(dims); ++at) {
    EXPECT_EQ(baseline_rotation(Side::kKey, dims[at]), keys[at]) << dims[at];
    EXPECT_EQ(baseline_rotation(Side::kValue, dims[at]), values[at]) << dims[at];
  }
}

// 16 tokens of one head, [16, dim], and the same in the order in which a side's blocks hold them.
struct HeadBlock {
  std::uint32_t dim;
  std::vector<HalfBits> halves;
  std::vector<std::byte> memory;

  explicit HeadBlock(std::uint32_t dim) : dim(dim), halves(head_block_values(dim)), memory(8 * halves.size() + 64) {}

  Status round(BaselineFormat format, Side side) {
    const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
    return round_head_block(format, side, dim, memory.data() + (64 - address % 64) % 64, halves.data());
  }
  float at(Side side, std::uint32_t token, std::uint32_t channel) const {
    return half_to_float(side == Side::kKey ? halves[channel * kBlockTokens + token] : halves[token * dim + channel]);
  }
  void put(Side side, std::uint32_t token, std::uint32_t channel, float value) {
    HalfBits& half = side == Side::kKey ? halves[channel * kBlockTokens + token] : halves[token * dim + channel];
    half = float_to_half(value);
  }
};

TEST(BaselineRounding, MoreBits_LoseLess) {
  for (const std::uint32_t dim : {32u, 64u, 96u, 128u, 256u}) {
    for (const Side side : {Side::kKey, Side::kValue}) {
      std::vector<double> errors;
      for (const BaselineFormat format : kFormats) {
        std::mt19937 random(7);
        std::normal_distribution<float> normal;
        HeadBlock block(dim);
        for (HalfBits& half : block.halves) half = float_to_half(normal(random));
        const HeadBlock before = block;
        ASSERT_EQ(block.round(format, side), Status::kOk);
        double sum = 0.0;
        for (std::size_t at = 0; at < block.halves.size(); ++at) {
          sum += std::pow(half_to_float(block.halves[at]) - half_to_float(before.halves[at]), 2);
        }
        errors.push_back(sum / static_cast<double>(block.halves.size()));
      }
      // A step of largest/127, /16 and /8, the largest of 32 normal values being about 2.1, has an error of step^2
      // / 12.
      EXPECT_NEAR(errors[0], 2.5e-5, 1e-5) << dim;
      EXPECT_NEAR(errors[1], 1.6e-3, 5e-4) << dim;
      EXPECT_NEAR(errors[2], 6.6e-3, 2e-3) << dim;
    }
  }
}

TEST(BaselineRounding, KeysAndValuesOf64Channels_AreRoundedAlike) {
  std::mt19937 random(8);
  std::normal_distribution<float> normal;
  HeadBlock key(64), value(64);
  for (std::uint32_t token = 0; token < kBlockTokens; ++token) {
    for (std::uint32_t channel = 0; channel < 64; ++channel) {
      const float number = normal(random);
      key.put(Side::kKey, token, channel, number);
      value.put(Side::kValue, token, channel, number);
    }
  }
  ASSERT_EQ(key.round(BaselineFormat::kQ4_0, Side::kKey), Status::kOk);
  ASSERT_EQ(value.round(BaselineFormat::kQ4_0, Side::kValue), Status::kOk);
  for (std::uint32_t token = 0; token < kBlockTokens; ++token) {
    for (std::uint32_t channel = 0; channel < 64; ++channel) {
      EXPECT_EQ(key.at(Side::kKey, token, channel), value.at(Side::kValue, token, channel)) << token << " " << channel;
    }
  }
}

TEST(BaselineRounding, ValuesOf128Channels_AreRoundedAsTwoHeadsOf64AndKeysAreNot) {
  for (const Side side : {Side::kKey, Side::kValue}) {
    std::mt19937 random(9);
    std::normal_distribution<float> normal;
    HeadBlock whole(128), halves[] = {HeadBlock(64), HeadBlock(64)};
    for (std::uint32_t token = 0; token < kBlockTokens; ++token) {
      for (std::uint32_t channel = 0; channel < 128; ++channel) {
        const float number = normal(random);
        whole.put(side, token, channel, number);
        halves[channel / 64].put(side, token, channel % 64, number);
      }
    }
    ASSERT_EQ(whole.round(BaselineFormat::kQ4_0, side), Status::kOk);
    for (HeadBlock& half : halves) ASSERT_EQ(half.round(BaselineFormat::kQ4_0, side), Status::kOk);
    std::uint32_t differences = 0;
    for (std::uint32_t token = 0; token < kBlockTokens; ++token) {
      for (std::uint32_t channel = 0; channel < 128; ++channel) {
        differences += whole.at(side, token, channel) != halves[channel / 64].at(side, token, channel % 64);
      }
    }
    EXPECT_EQ(differences > 0, side == Side::kKey) << differences;
  }
}

TEST(BaselineRounding, RowsThatAreNotFinite_AreLeftAlone) {
  HeadBlock block(64);
  block.halves.assign(block.halves.size(), float_to_half(0.3f));
  block.halves[77] = 0x7E00;  // NaN
  const auto before = block.halves;
  EXPECT_EQ(block.round(BaselineFormat::kQ4_0, Side::kKey), Status::kNonFinite);
  EXPECT_EQ(block.halves, before);
}

}  // namespace
}  // namespace kvarn
