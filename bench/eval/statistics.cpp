#include "statistics.hpp"

#include <algorithm>
#include <cmath>
#include <optional>
#include <random>
#include <utility>

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

// How often each block is in one resample.
std::vector<std::size_t> draw(std::size_t blocks, std::mt19937_64& random) {
  std::vector<std::size_t> times(blocks, 0);
  // The standard's distributions differ between libraries; the remainder's bias is below 2^-40 here.
  for (std::size_t drawn = 0; drawn < blocks; ++drawn) ++times[random() % blocks];
  return times;
}

double resampled_mean(const std::vector<Block>& blocks, const std::vector<std::size_t>& times) {
  Block total = {0.0, 0.0};
  for (std::size_t index = 0; index < blocks.size(); ++index) {
    const auto count = static_cast<double>(times[index]);
    total = {total.sum + count * blocks[index].sum, total.count + count * blocks[index].count};
  }
  return total.sum / total.count;
}

// A value and the block that it was drawn with, in ascending order of values.
using Ranked = std::vector<std::pair<double, std::size_t>>;

Ranked ranked(std::span<const std::vector<double>> series, std::size_t block_values) {
  Ranked values;
  std::size_t block = 0;
  for (const std::vector<double>& part : series) {
    for (std::size_t index = 0; index < part.size(); ++index) {
      values.emplace_back(part[index], block + index / block_values);
    }
    block += (part.size() + block_values - 1) / block_values;
  }
  std::sort(values.begin(), values.end());
  return values;
}

// As quantile_of_sorted() of the list in which every value stands as often as its block was drawn.
double resampled_quantile(const Ranked& values, const std::vector<std::size_t>& times, double fraction) {
  std::size_t total = 0;
  for (const auto& [value, block] : values) total += times[block];
  const double place = fraction * static_cast<double>(total - 1);
  const auto below = static_cast<std::size_t>(place);
  std::optional<double> low;
  std::size_t passed = 0;
  for (const auto& [value, block] : values) {
    passed += times[block];
    if (!low && passed > below) low = value;
    if (passed > std::min(below + 1, total - 1)) return std::lerp(*low, value, place - static_cast<double>(below));
  }
  return values.back().first;
}

Interval middle_of(std::vector<double> figures, double confidence) {
  std::sort(figures.begin(), figures.end());
  const double outside = (1.0 - confidence) / 2.0;
  return {quantile_of_sorted(figures, outside), quantile_of_sorted(figures, 1.0 - outside)};
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
    means.push_back(resampled_mean(blocks, draw(blocks.size(), random)));
  }
  return middle_of(std::move(means), settings.confidence);
}

std::vector<Ratio> bootstrap_ratios(std::span<const std::vector<double>> series,
                                    std::span<const std::vector<double>> other, std::span<const double> fractions,
                                    const Bootstrap& settings) {
  const std::vector<Block> blocks = blocks_of(series, settings.block_values);
  const std::vector<Block> other_blocks = blocks_of(other, settings.block_values);
  const Ranked values = ranked(series, settings.block_values);
  const Ranked other_values = ranked(other, settings.block_values);
  const auto ratios_of = [&](const std::vector<std::size_t>& times) {
    std::vector<double> ratios = {resampled_mean(blocks, times) / resampled_mean(other_blocks, times)};
    for (const double fraction : fractions) {
      ratios.push_back(resampled_quantile(values, times, fraction) / resampled_quantile(other_values, times, fraction));
    }
    return ratios;
  };
  std::mt19937_64 random(settings.seed);
  std::vector<std::vector<double>> resampled(fractions.size() + 1);
  for (int resample = 0; resample < settings.resamples; ++resample) {
    const std::vector<double> ratios = ratios_of(draw(blocks.size(), random));
    for (std::size_t index = 0; index < ratios.size(); ++index) resampled[index].push_back(ratios[index]);
  }
  std::vector<Ratio> result;
  for (const double ratio : ratios_of(std::vector<std::size_t>(blocks.size(), 1))) {
    result.push_back({ratio, middle_of(std::move(resampled[result.size()]), settings.confidence)});
  }
  return result;
}

}  // namespace kvarn::bench
