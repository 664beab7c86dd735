// Means, quantiles and bootstrap intervals.
#include "statistics.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

namespace kvarn::bench {
namespace {

TEST(Statistics, Quantiles_AreLinearBetweenNeighbours) {
  const std::vector<double> sorted = {1.0, 2.0, 4.0};
  EXPECT_DOUBLE_EQ(quantile_of_sorted(sorted, 0.0), 1.0);
  EXPECT_DOUBLE_EQ(quantile_of_sorted(sorted, 0.5), 2.0);
  EXPECT_DOUBLE_EQ(quantile_of_sorted(sorted, 0.75), 3.0);
  EXPECT_DOUBLE_EQ(quantile_of_sorted(sorted, 1.0), 4.0);
  EXPECT_DOUBLE_EQ(quantile_of_sorted(std::vector<double>{5.0}, 0.999), 5.0);
  EXPECT_DOUBLE_EQ(median_of({3.0, 1.0, 2.0, 10.0}), 2.5);
  EXPECT_DOUBLE_EQ(mean_of(sorted), 7.0 / 3.0);
  EXPECT_DOUBLE_EQ(mean_of({}), 0.0);
}

TEST(Statistics, Bootstrap_OfConstantsIsThatConstant) {
  const std::vector<std::vector<double>> series = {std::vector<double>(100, 0.25), std::vector<double>(7, 0.25)};
  const Interval interval = bootstrap_mean(series, {});
  EXPECT_DOUBLE_EQ(interval.low, 0.25);
  EXPECT_DOUBLE_EQ(interval.high, 0.25);
}

TEST(Statistics, Bootstrap_SameSeedSameInterval) {
  std::vector<double> values;
  for (int index = 0; index < 1000; ++index) values.push_back(index % 17);
  const std::vector<std::vector<double>> series = {values};
  const Interval first = bootstrap_mean(series, {.seed = 5});
  const Interval again = bootstrap_mean(series, {.seed = 5});
  EXPECT_EQ(first.low, again.low);
  EXPECT_EQ(first.high, again.high);
  EXPECT_LT(first.low, mean_of(values));
  EXPECT_GT(first.high, mean_of(values));
}

// Independent values: the interval is mean +- 1.96 sigma / sqrt(n); resampling 2,000 times leaves a few percent of
// noise.
TEST(Statistics, Bootstrap_WidthFollowsTheStandardError) {
  std::mt19937 random(11);
  std::normal_distribution<double> normal(2.0, 1.0);
  std::vector<double> values(64 * 400);
  for (double& value : values) value = normal(random);
  const Interval interval = bootstrap_mean(std::vector<std::vector<double>>{values}, {});
  const double expected = 2.0 * 1.96 / std::sqrt(static_cast<double>(values.size()));
  EXPECT_NEAR((interval.high - interval.low) / expected, 1.0, 0.15);
}

// Values that repeat 64 times carry the information of one: blocks must not be taken apart.
TEST(Statistics, Bootstrap_DependentNeighboursWidenTheInterval) {
  std::mt19937 random(13);
  std::normal_distribution<double> normal(2.0, 1.0);
  std::vector<double> values;
  for (int block = 0; block < 400; ++block) values.insert(values.end(), 64, normal(random));
  const Interval interval = bootstrap_mean(std::vector<std::vector<double>>{values}, {});
  EXPECT_NEAR((interval.high - interval.low) / (2.0 * 1.96 / std::sqrt(400.0)), 1.0, 0.15);
}

TEST(Statistics, Ratios_OfASeriesAndItsDouble_AreExactlyHalfAndOne) {
  std::mt19937 random(17);
  std::lognormal_distribution<double> wide(0.0, 2.0);
  std::vector<std::vector<double>> series = {std::vector<double>(1000), std::vector<double>(77)};
  std::vector<std::vector<double>> doubled = series;
  for (std::size_t part = 0; part < series.size(); ++part) {
    for (std::size_t index = 0; index < series[part].size(); ++index) {
      series[part][index] = wide(random);
      doubled[part][index] = 2.0 * series[part][index];
    }
  }
  const std::vector<double> fractions = {0.5, 0.999};
  for (const Ratio& ratio : bootstrap_ratios(series, doubled, fractions, {})) {
    EXPECT_DOUBLE_EQ(ratio.value, 0.5);
    EXPECT_DOUBLE_EQ(ratio.interval.low, 0.5);
    EXPECT_DOUBLE_EQ(ratio.interval.high, 0.5);
  }
}

// Two caches that differ by a noise of their own beside what they have in common: the value is that of the whole lists,
// the interval is around it, wider for the rarer quantile, and narrower than that of lists whose blocks do not match.
TEST(Statistics, Ratios_AreThoseOfTheListsAndPairingNarrowsThem) {
  std::mt19937 random(19);
  std::lognormal_distribution<double> common(0.0, 1.5);
  std::lognormal_distribution<double> own(0.0, 0.3);
  std::vector<double> first;
  std::vector<double> second;
  for (int index = 0; index < 64 * 100; ++index) {
    const double both = common(random);
    first.push_back(both * own(random));
    second.push_back(both * own(random));
  }
  std::vector<double> turned(second.begin() + 64, second.end());
  turned.insert(turned.end(), second.begin(), second.begin() + 64);
  const std::vector<double> fractions = {0.5, 0.999};
  const auto ratios = [&](const std::vector<double>& other) {
    return bootstrap_ratios(std::vector<std::vector<double>>{first}, std::vector<std::vector<double>>{other}, fractions,
                            {});
  };
  const std::vector<Ratio> paired = ratios(second);
  const std::vector<Ratio> unpaired = ratios(turned);
  ASSERT_EQ(paired.size(), 3u);
  std::vector<double> sorted_first = first;
  std::vector<double> sorted_second = second;
  std::sort(sorted_first.begin(), sorted_first.end());
  std::sort(sorted_second.begin(), sorted_second.end());
  EXPECT_NEAR(paired[0].value, mean_of(first) / mean_of(second), 1e-12);
  EXPECT_DOUBLE_EQ(paired[1].value, median_of(first) / median_of(second));
  EXPECT_DOUBLE_EQ(paired[2].value, quantile_of_sorted(sorted_first, 0.999) / quantile_of_sorted(sorted_second, 0.999));
  const auto width = [](const Ratio& ratio) { return ratio.interval.high - ratio.interval.low; };
  for (std::size_t index = 0; index < paired.size(); ++index) {
    EXPECT_LT(paired[index].interval.low, paired[index].value);
    EXPECT_GT(paired[index].interval.high, paired[index].value);
  }
  EXPECT_LT(width(paired[0]), 0.5 * width(unpaired[0]));
  EXPECT_LT(width(paired[1]), width(paired[2]));
}

TEST(Statistics, Ratios_ToZero_AreNotFinite) {
  const std::vector<std::vector<double>> series = {std::vector<double>(10, 1.0)};
  const std::vector<std::vector<double>> zeros = {std::vector<double>(10, 0.0)};
  EXPECT_FALSE(std::isfinite(bootstrap_ratios(series, zeros, {}, {})[0].value));
}

}  // namespace
}  // namespace kvarn::bench
