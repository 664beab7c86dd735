#include "cache/query_history.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

namespace kvarn {
namespace {

constexpr QueryShape kShape{.tile_tokens = 128, .kv_heads = 2, .group = 3, .dim = 32};

// One query of all heads; channel c of every head has the mean 2 and a standard deviation of 1 + c/8.
std::vector<float> random_query(std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<float> q(std::size_t{kShape.heads()} * kShape.dim);
  for (std::size_t at = 0; at < q.size(); ++at) {
    q[at] = 2.0f + normal(random) * (1.0f + static_cast<float>(at % kShape.dim) / 8.0f);
  }
  return q;
}

std::vector<float> moments_of(const QueryHistory& history, std::uint32_t kv_head) {
  std::vector<float> moments(kShape.moment_values());
  history.read(kShape, kv_head, moments.data());
  return moments;
}

QuerySamples one_sample(float value) {
  QuerySamples samples(kShape);
  const std::vector<float> q(std::size_t{kShape.heads()} * kShape.dim, value);
  samples.keep(0, q.data(), kShape.dim);
  return samples;
}

QueryShape shape_of_period(std::uint32_t period) {
  QueryShape shape = kShape;
  shape.period = period;
  return shape;
}

TEST(Contribution, EarlyPowersOfTwoAndThenOneTileOfEveryPeriod) {
  for (const std::uint32_t period : {1u, 2u, 4u, 8u}) {
    std::vector<std::uint64_t> contributing;
    double rest = 1.0;
    for (std::uint64_t index = 0; index < 40; ++index) {
      const Contribution contribution = shape_of_period(period).contribution(index * 128);
      if (!contribution.is_one) continue;
      contributing.push_back(index);
      rest *= contribution.rest;
      EXPECT_NEAR(rest, std::pow(0.9, static_cast<double>(index)), 1e-5) << "a tenth a tile, however many contribute";
    }
    std::vector<std::uint64_t> expected = {0};
    for (std::uint64_t index = 1; index < period; index *= 2) expected.push_back(index);
    for (std::uint64_t index = period; index < 40; index += period) expected.push_back(index);
    EXPECT_EQ(contributing, expected) << period;
  }
}

TEST(Contribution, TileThatStartsInTheMiddle_CountsAsTheOneItBranchedOff) {
  EXPECT_TRUE(shape_of_period(4).contribution(2 * 128 + 1).is_one);
  EXPECT_FALSE(shape_of_period(4).contribution(4 * 128 - 1).is_one);
  EXPECT_TRUE(shape_of_period(4).contribution(5).is_one);
}

TEST(QueryShape, AtMost32QueriesOfAKvHead_ButOneOfEachHead) {
  for (const std::uint32_t tile_tokens : {16u, 48u, 128u, 256u}) {
    for (std::uint32_t group = 1; group <= 128; ++group) {
      const QueryShape shape{tile_tokens, 1, group, 64};
      std::uint32_t sampled = 0;
      for (std::uint32_t row = 0; row < tile_tokens; ++row) {
        if (!shape.is_sampled(row)) continue;
        EXPECT_EQ(shape.sample_of(row), sampled);
        ++sampled;
      }
      EXPECT_EQ(sampled, shape.samples());
      EXPECT_TRUE(sampled * group <= 32 || sampled == 1) << tile_tokens << " " << group;
      EXPECT_GE(sampled, 1u);
    }
  }
  EXPECT_EQ((QueryShape{128, 3, 3, 64}.samples()), 8u);
}

TEST(QueryHistory, MomentsOfItsSamples_AreThoseOfTheQueries) {
  std::mt19937 random(1);
  QuerySamples samples(kShape);
  std::vector<std::vector<double>> expected(kShape.kv_heads, std::vector<double>(kShape.moment_values()));
  for (std::uint32_t sample = 0; sample < kShape.samples(); ++sample) {
    const std::vector<float> q = random_query(random);
    samples.keep(sample, q.data(), kShape.dim);
    for (std::size_t at = 0; at < q.size(); ++at) {
      const std::size_t head = at / kShape.dim, channel = at % kShape.dim;
      std::vector<double>& moments = expected[head / kShape.group];
      moments[channel] += 1.0 * q[at] * q[at];
      moments[(1 + head % kShape.group) * kShape.dim + channel] += q[at];
    }
  }
  const QueryHistory history(kShape, nullptr, 1.0f, samples);
  EXPECT_EQ(history.weight(), static_cast<float>(kShape.samples()));
  for (std::uint32_t kv_head = 0; kv_head < kShape.kv_heads; ++kv_head) {
    const std::vector<float> moments = moments_of(history, kv_head);
    for (std::size_t at = 0; at < moments.size(); ++at) {
      // Half a code of 8 bits over a range of 15 is 0.06 a value; 16 or 48 of them, of either sign.
      EXPECT_NEAR(moments[at], expected[kv_head][at], at < kShape.dim ? 5.0 : 0.5) << at;
    }
  }
}

TEST(QueryHistory, NextTile_IsAddedToWhatWasBefore) {
  const QueryHistory first(kShape, nullptr, 1.0f, one_sample(3.0f));
  const QueryHistory second(kShape, &first, 0.5f, one_sample(-1.0f));
  EXPECT_EQ(second.weight(), 1.5f);
  for (const std::uint32_t kv_head : {0u, 1u}) {
    const std::vector<float> moments = moments_of(second, kv_head);
    for (std::uint32_t channel = 0; channel < kShape.dim; ++channel) {
      EXPECT_NEAR(moments[channel], 3 * (4.5f + 1.0f), 0.02f);  // all heads of the group
      EXPECT_NEAR(moments[kShape.dim + channel], 1.5f - 1.0f, 0.002f);
    }
  }
  EXPECT_FALSE(second.equals(first));
}

TEST(QuerySamples, QueryThatHalfPrecisionCannotHold_IsNotKept) {
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity(), -65536.0f}) {
    QuerySamples samples = one_sample(1.0f);
    ASSERT_EQ(samples.count(), 1u);
    std::vector<float> q(std::size_t{kShape.heads()} * kShape.dim, 1.0f);
    q.back() = bad;
    samples.keep(0, q.data(), kShape.dim);
    EXPECT_EQ(samples.count(), 0u) << bad;
    samples.keep(1, q.data(), kShape.dim);
    EXPECT_EQ(samples.count(), 0u) << bad;
  }
}

TEST(QuerySamples, ForgottenSample_CountsNoMore) {
  QuerySamples samples = one_sample(1.0f);
  const std::vector<float> q(std::size_t{kShape.heads()} * kShape.dim, 2.0f);
  samples.keep(5, q.data(), kShape.dim);
  samples.forget(5);
  EXPECT_TRUE(QueryHistory(kShape, nullptr, 1.0f, samples).equals({kShape, nullptr, 1.0f, one_sample(1.0f)}));
}

TEST(QueryHistory, LargestAndSmallestQueries_StayFiniteAndValid) {
  for (const float value : {0.0f, 1e-42f, 1e-30f, 1e-10f, 65504.0f, -65504.0f}) {
    const QueryHistory history(kShape, nullptr, 1.0f, one_sample(value));
    for (const float moment : moments_of(history, 1)) EXPECT_TRUE(std::isfinite(moment)) << value;
    EXPECT_NE(QueryHistory::parse(kShape, history.bytes()), nullptr) << value;
  }
}

TEST(QueryHistory, ItsBytes_SpellItAgain) {
  std::mt19937 random(2);
  QuerySamples samples(kShape);
  for (std::uint32_t sample = 0; sample < 5; ++sample) samples.keep(sample, random_query(random).data(), kShape.dim);
  const QueryHistory history(kShape, nullptr, 1.0f, samples);
  ASSERT_EQ(history.bytes().size(), QueryHistory::bytes_of(kShape));
  const auto again = QueryHistory::parse(kShape, history.bytes());
  ASSERT_NE(again, nullptr);
  EXPECT_TRUE(again->equals(history));
}

TEST(QueryHistory, BytesThatAreNone_AreRefused) {
  const QueryHistory history(kShape, nullptr, 1.0f, one_sample(1.0f));
  const std::vector<std::uint8_t> good(history.bytes().begin(), history.bytes().end());
  EXPECT_EQ(QueryHistory::parse(kShape, {}), nullptr);
  EXPECT_EQ(QueryHistory::parse(kShape, {good.data(), good.size() - 2}), nullptr);
  const auto with_word = [&](std::size_t word, std::uint16_t value) {
    std::vector<std::uint8_t> bytes = good;
    std::memcpy(bytes.data() + 2 * word, &value, 2);
    return QueryHistory::parse(kShape, bytes);
  };
  EXPECT_EQ(with_word(1, 0x7FC0), nullptr);       // weight: not a number
  EXPECT_EQ(with_word(1, 0xC000), nullptr);       // weight: negative
  EXPECT_EQ(with_word(2, 112), nullptr);          // exponent beyond what a float holds
  EXPECT_EQ(with_word(3, 0xBC00), nullptr);       // a square below zero
  EXPECT_EQ(with_word(3, 0x7C00), nullptr);       // infinity
  EXPECT_NE(with_word(3 + 33, 0xBC00), nullptr);  // a sum may be negative
}

}  // namespace
}  // namespace kvarn
