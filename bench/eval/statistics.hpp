// Figures of a list of numbers. Knows nothing of what they stand for.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace kvarn::bench {

double mean_of(std::span<const double> values);

// Quantile of a sorted list, fraction 0 to 1, linear between neighbours. The list must not be empty.
double quantile_of_sorted(std::span<const double> sorted, double fraction);
double median_of(std::vector<double> values);

struct Interval {
  double low;
  double high;
};

struct Bootstrap {
  std::size_t block_values = 64;  // neighbours that depend on each other stay together
  int resamples = 2000;
  double confidence = 0.95;
  std::uint64_t seed = 1;
};

// Confidence interval of the mean from a block bootstrap: series are drawn anew from whole blocks of themselves, a
// shorter last block counts by its length. The same seed gives the same interval. No series may be empty.
Interval bootstrap_mean(std::span<const std::vector<double>> series, const Bootstrap& settings);

struct Ratio {
  double value;
  Interval interval;
};

// The mean, and then every quantile, of one list of series over that of another, each with its interval: every resample
// draws the same blocks from both, so that what moves both does not widen it. Both must have the same lengths, none may
// be empty. A figure of the other that is zero gives no finite ratio.
std::vector<Ratio> bootstrap_ratios(std::span<const std::vector<double>> series,
                                    std::span<const std::vector<double>> other, std::span<const double> fractions,
                                    const Bootstrap& settings);

}  // namespace kvarn::bench
