// Means, quantiles and bootstrap intervals.
#include "statistics.hpp"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace kvarn::bench
