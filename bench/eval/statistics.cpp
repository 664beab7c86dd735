#include "statistics.hpp"

#include <algorithm>
#include <cmath>
#include <random>

namespace kvarn::bench {
namespace {

struct Block {
  double sum;
  double count;
};

std::vector<Block> blocks_of(std::span<const std::vector<double>> series, std::size_t block_values) {
  std::vector<Block> blocks;
  for (const std::vector<double>& values : series) {
    for (std::size_t first = 0; first < values.size(); first += block_values) {
      const std::size_t count = std::min(block_values, values.size() - first);
      blocks.push_back({mean_of({&values[first], count}) * static_cast<double>(count), static_cast<double>(count)});
    }
  }
  return blocks;
}

}  // namespace

double mean_of(std::span<const double> values) {
  double sum = 0.0;
  for (const double value : values) sum += value;
  return values.empty() ? 0.0 : sum / static_cast<double>(values.size());
}

double quantile_of_sorted(std::span<const double> sorted, double fraction) {
  const double place = fraction * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  return std::lerp(sorted[below], sorted[above], place - static_cast<double>(below));
}

double median_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return quantile_of_sorted(values, 0.5);
}

Interval bootstrap_mean(std::span<const std::vector<double>> series, const Bootstrap& settings) {
  const std::vector<Block> blocks = blocks_of(series, settings.block_values);
  std::mt19937_64 random(settings.seed);
  std::vector<double> means;
  for (int resample = 0; resample < settings.resamples; ++resample) {
    Block total = {0.0, 0.0};
    for (std::size_t drawn = 0; drawn < blocks.size(); ++drawn) {
      // The standard's distributions differ between libraries; the remainder's bias is below 2^-40 here.
      const Block& block = blocks[random() % blocks.size()];
      total = {total.sum + block.sum, total.count + block.count};
    }
    means.push_back(total.sum / total.count);
  }
  std::sort(means.begin(), means.end());
  const double outside = (1.0 - settings.confidence) / 2.0;
  return {quantile_of_sorted(means, outside), quantile_of_sorted(means, 1.0 - outside)};
}

}  // namespace kvarn::bench
