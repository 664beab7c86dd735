// The published normalization in the multiplicative domain: products of clamped scales instead of sums of logarithms.
#include "reference/varn.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

namespace kvarn::reference {
namespace {

void update_scales(std::vector<float>& scales, const std::vector<float>& deviations) {
  for (std::size_t i = 0; i < scales.size(); ++i) {
    const float step = std::clamp(deviations[i], kMinDeviation, kMaxDeviation);
    scales[i] = std::clamp(scales[i] * step, kMinScale, kMaxScale);
  }
}

float max_over_min(const std::vector<float>& deviations) {
  const auto [min, max] = std::minmax_element(deviations.begin(), deviations.end());
  return *max / std::max(*min, 1e-8f);
}

}  // namespace

std::vector<float> row_deviations(const FloatTile& tile) {
  std::vector<float> deviations(tile.rows);
  for (std::uint32_t row = 0; row < tile.rows; ++row) {
    const float sum = sum_row(tile.lanes, [&](std::uint32_t lane) { return tile.at(row, lane); });
    const float mean = sum / static_cast<float>(tile.lanes);
    const float squares = sum_row(tile.lanes, [&](std::uint32_t lane) {
      const float distance = tile.at(row, lane) - mean;
      return distance * distance;
    });
    deviations[row] = std::sqrt(squares / static_cast<float>(tile.lanes - 1));
  }
  return deviations;
}

std::vector<float> lane_deviations(const FloatTile& tile) {
  std::vector<float> deviations(tile.lanes);
  for (std::uint32_t lane = 0; lane < tile.lanes; ++lane) {
    float sum = 0.0f;
    for (std::uint32_t row = 0; row < tile.rows; ++row) sum += tile.at(row, lane);
    const float mean = sum / static_cast<float>(tile.rows);
    float squares = 0.0f;
    for (std::uint32_t row = 0; row < tile.rows; ++row) {
      const float distance = tile.at(row, lane) - mean;
      squares += distance * distance;
    }
    deviations[lane] = std::sqrt(squares / static_cast<float>(tile.rows - 1));
  }
  return deviations;
}

float imbalance(const std::vector<float>& lane_std, const std::vector<float>& row_std) {
  return max_over_min(lane_std) + max_over_min(row_std);
}

FloatTile apply_balance(const FloatTile& tile, const Balance& balance) {
  FloatTile balanced(tile.rows, tile.lanes);
  for (std::uint32_t row = 0; row < tile.rows; ++row) {
    const float inverse_row = 1.0f / balance.row_scale[row];
    for (std::uint32_t lane = 0; lane < tile.lanes; ++lane) {
      const float inverse_lane = 1.0f / balance.lane_scale[lane];
      balanced.at(row, lane) = (tile.at(row, lane) * inverse_lane) * inverse_row;
    }
  }
  return balanced;
}

Balance find_balance(const FloatTile& tile, int iterations) {
  Balance scales{std::vector<float>(tile.rows, 1.0f), std::vector<float>(tile.lanes, 1.0f)};
  Balance best = scales;
  std::vector<float> lane_std = lane_deviations(tile);
  float best_imbalance = imbalance(lane_std, row_deviations(tile));
  for (int iteration = 0; iteration < iterations; ++iteration) {
    update_scales(scales.lane_scale, lane_std);
    update_scales(scales.row_scale, row_deviations(apply_balance(tile, scales)));
    const FloatTile balanced = apply_balance(tile, scales);
    lane_std = lane_deviations(balanced);
    const float now = imbalance(lane_std, row_deviations(balanced));
    if (now <= best_imbalance) {
      best_imbalance = now;
      best = scales;
    }
  }
  return best;
}

int scale_exponent(const FloatTile& tile) {
  float total = 0.0f;
  for (std::uint32_t row = 0; row < tile.rows; ++row) {
    total += sum_row(tile.lanes, [&](std::uint32_t lane) { return tile.at(row, lane) * tile.at(row, lane); });
  }
  const float rms = std::sqrt(total / static_cast<float>(tile.rows * tile.lanes));
  if (rms == 0.0f || !std::isfinite(rms)) return 0;
  const int biased = static_cast<int>(std::bit_cast<std::uint32_t>(rms) >> 23);
  return std::max(biased, 1) - 127;
}

}  // namespace kvarn::reference
