#include "cache/query_history.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

namespace kvarn {
namespace {

constexpr QueryShape kShape{.tile_tokens = 128, .kv_heads = 2, .group = 3, .dim = 32};
constexpr QueryShape kByteShape{
    .tile_tokens = 128, .kv_heads = 2, .group = 3, .dim = 32, .version = RecordVersion::kBytes};

// One query of all heads; channel c of every head has the mean 2 and a standard deviation of 1 + c/8.
std::vector<float> random_query(std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<float> q(std::size_t{kShape.heads()} * kShape.dim);
  for (std::size_t at = 0; at < q.size(); ++at) {
    q[at] = 2.0f + normal(random) * (1.0f + static_cast<float>(at % kShape.dim) / 8.0f);
  }
  return q;
}

std::vector<float> moments_of(const QueryShape& shape, const QueryHistory& history, std::uint32_t kv_head) {
  std::vector<float> moments(shape.moment_values());
  history.read(shape, kv_head, moments.data());
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

// Halves, or single bytes.
class QueryHistories : public testing::TestWithParam<QueryShape> {};

INSTANTIATE_TEST_SUITE_P(QueryHistory, QueryHistories, testing::Values(kShape, kByteShape));

// How far a stored moment may be off: the bytes of a square keep three bits behind its first one, a sum counts in
// steps of a 64th of the largest of its array or less.
double rounding(const QueryShape& shape, std::size_t at, double moment, double largest_sum) {
  if (shape.version == RecordVersion::kHalves) return std::abs(moment) / 2048.0;
  return at < shape.dim ? moment / 16.0 : largest_sum / 128.0;
}

TEST_P(QueryHistories, MomentsOfItsSamples_AreThoseOfTheQueries) {
  const QueryShape& shape = GetParam();
  std::mt19937 random(1);
  QuerySamples samples(shape);
  std::vector<std::vector<double>> expected(shape.kv_heads, std::vector<double>(shape.moment_values()));
  for (std::uint32_t sample = 0; sample < shape.samples(); ++sample) {
    const std::vector<float> q = random_query(random);
    samples.keep(sample, q.data(), shape.dim);
    for (std::size_t at = 0; at < q.size(); ++at) {
      const std::size_t head = at / shape.dim, channel = at % shape.dim;
      std::vector<double>& moments = expected[head / shape.group];
      moments[channel] += 1.0 * q[at] * q[at];
      moments[(1 + head % shape.group) * shape.dim + channel] += q[at];
    }
  }
  const QueryHistory history(shape, nullptr, 1.0f, samples);
  EXPECT_EQ(history.weight(), static_cast<float>(shape.samples()));
  for (std::uint32_t kv_head = 0; kv_head < shape.kv_heads; ++kv_head) {
    const std::vector<float> moments = moments_of(shape, history, kv_head);
    const std::vector<double>& exact = expected[kv_head];
    for (std::size_t at = 0; at < moments.size(); ++at) {
      const auto array = exact.begin() + static_cast<std::ptrdiff_t>(at / shape.dim * shape.dim);
      const double largest = *std::max_element(array, array + shape.dim);
      // Half a code of 8 bits over a range of 15 is 0.06 a value; 16 or 48 of them, of either sign.
      const double sampled = at < shape.dim ? 5.0 : 0.5;
      EXPECT_NEAR(moments[at], exact[at], sampled + rounding(shape, at, exact[at], largest)) << at;
    }
  }
}

TEST_P(QueryHistories, NextTile_IsAddedToWhatWasBefore) {
  const QueryShape& shape = GetParam();
  const QueryHistory first(shape, nullptr, 1.0f, one_sample(3.0f));
  const QueryHistory second(shape, &first, 0.5f, one_sample(-1.0f));
  EXPECT_EQ(second.weight(), 1.5f);
  const double square = 3 * (4.5 + 1.0), sum = 1.5 - 1.0;  // squares of all heads of the group
  for (const std::uint32_t kv_head : {0u, 1u}) {
    const std::vector<float> moments = moments_of(shape, second, kv_head);
    for (std::uint32_t channel = 0; channel < shape.dim; ++channel) {
      EXPECT_NEAR(moments[channel], square, 0.01 + 2 * rounding(shape, channel, square, sum));
      // What was before was rounded too, by a 128th of 3.
      EXPECT_NEAR(moments[shape.dim + channel], sum, 0.002 + rounding(shape, shape.dim, sum, sum) + 0.5 * 3.0 / 128.0);
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

TEST_P(QueryHistories, LargestAndSmallestQueries_StayFiniteAndValid) {
  for (const float value : {0.0f, 1e-42f, 1e-30f, 1e-10f, 65504.0f, -65504.0f}) {
    const QueryHistory history(GetParam(), nullptr, 1.0f, one_sample(value));
    for (const float moment : moments_of(GetParam(), history, 1)) EXPECT_TRUE(std::isfinite(moment)) << value;
    EXPECT_NE(QueryHistory::parse(GetParam(), history.bytes()), nullptr) << value;
  }
}

TEST_P(QueryHistories, ItsBytes_SpellItAgain) {
  std::mt19937 random(2);
  QuerySamples samples(GetParam());
  for (std::uint32_t sample = 0; sample < 5; ++sample) samples.keep(sample, random_query(random).data(), kShape.dim);
  const QueryHistory history(GetParam(), nullptr, 1.0f, samples);
  ASSERT_EQ(history.bytes().size(), QueryHistory::bytes_of(GetParam()));
  const auto again = QueryHistory::parse(GetParam(), history.bytes());
  ASSERT_NE(again, nullptr);
  EXPECT_TRUE(again->equals(history));
}

// Whoever takes over a sequence and adds nothing has its bytes.
TEST_P(QueryHistories, WhatIsRoundedAlready_IsNotChangedByRounding) {
  std::mt19937 random(3);
  QuerySamples samples(GetParam());
  for (std::uint32_t sample = 0; sample < 5; ++sample) samples.keep(sample, random_query(random).data(), kShape.dim);
  const QueryHistory history(GetParam(), nullptr, 1.0f, samples);
  EXPECT_TRUE(QueryHistory(GetParam(), &history, 1.0f, QuerySamples(GetParam())).equals(history));
}

TEST(QueryHistory, NumbersOfOneByte_TakeHalfAsMuch) {
  EXPECT_EQ(QueryHistory::bytes_of(kShape), 4u + 2 * 4 * (2 + 2 * 32));
  EXPECT_EQ(QueryHistory::bytes_of(kByteShape), 4u + 2 * 4 * (2 + 32));
}

TEST(QueryHistory, BytesThatAreNone_AreRefused) {
  const QueryHistory history(kShape, nullptr, 1.0f, one_sample(1.0f));
  const std::vector<std::uint8_t> good(history.bytes().begin(), history.bytes().end());
  EXPECT_EQ(QueryHistory::parse(kShape, {}), nullptr);
  EXPECT_EQ(QueryHistory::parse(kShape, {good.data(), good.size() - 2}), nullptr);
  EXPECT_EQ(QueryHistory::parse(kByteShape, good), nullptr);
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

TEST(QueryHistory, SingleBytesThatAreNone_AreRefused) {
  const QueryHistory history(kByteShape, nullptr, 1.0f, one_sample(1.0f));
  const auto with = [&](std::size_t at, const auto& value) {
    std::vector<std::uint8_t> bytes(history.bytes().begin(), history.bytes().end());
    std::memcpy(bytes.data() + at, &value, sizeof(value));
    return QueryHistory::parse(kByteShape, bytes);
  };
  constexpr std::size_t kExponent = 4, kSquares = kExponent + 2, kSums = kSquares + 32 + 2;
  EXPECT_NE(with(kExponent, std::int16_t{111}), nullptr);
  EXPECT_EQ(with(kExponent, std::int16_t{112}), nullptr);  // beyond what a float holds
  EXPECT_NE(with(kSquares, std::uint8_t{0xF7}), nullptr);
  EXPECT_EQ(with(kSquares, std::uint8_t{0xF8}), nullptr);  // infinity
  EXPECT_NE(with(kSums, std::uint8_t{0x80}), nullptr);     // a sum may be anything
}

}  // namespace
}  // namespace kvarn
