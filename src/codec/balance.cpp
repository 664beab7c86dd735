// The published iteration: deviations of one axis become factors of its scales, then the other axis follows.
#include "codec/balance.hpp"

#include <algorithm>

#include "kernels/kernel_table.hpp"

namespace kvarn {
namespace {

constexpr int kIterations = 8;
constexpr float kMinScale = 0.74081822f;  // exp(-0.3)
constexpr float kMaxScale = 22026.4658f;  // exp(10)
constexpr float kMinDeviation = 1e-3f;
constexpr float kMaxDeviation = 1e3f;

void update_scales(float* scales, const float* deviations, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    const float step = std::clamp(deviations[i], kMinDeviation, kMaxDeviation);
    scales[i] = std::clamp(scales[i] * step, kMinScale, kMaxScale);
  }
}

void invert(const float* scales, std::size_t count, float* factors) {
  for (std::size_t i = 0; i < count; ++i) factors[i] = 1.0f / scales[i];
}

float max_over_min(const float* deviations, std::size_t count) {
  const auto [least, most] = std::minmax_element(deviations, deviations + count);
  return *most / std::max(*least, 1e-8f);
}

}  // namespace

void balance_tile(const float* tile, std::size_t rows, std::size_t lanes, const BalanceScales& scales,
                  float* balanced) {
  const KernelTable& kernel = kernels();
  const auto imbalance = [&] { return max_over_min(scales.lane_std, lanes) + max_over_min(scales.row_std, rows); };
  const auto normalize = [&] { kernel.normalize(tile, rows, lanes, scales.lane_factor, scales.row_factor, balanced); };
  for (float* row_scale : {scales.row_scale, scales.best_row_scale}) std::fill_n(row_scale, rows, 1.0f);
  for (float* lane_scale : {scales.lane_scale, scales.best_lane_scale}) std::fill_n(lane_scale, lanes, 1.0f);
  std::fill_n(scales.row_factor, rows, 1.0f);
  kernel.lane_deviations(tile, rows, lanes, scales.lane_std);
  kernel.row_deviations(tile, rows, lanes, scales.row_std);
  float best = imbalance();
  for (int iteration = 0; iteration < kIterations; ++iteration) {
    update_scales(scales.lane_scale, scales.lane_std, lanes);
    invert(scales.lane_scale, lanes, scales.lane_factor);
    normalize();
    kernel.row_deviations(balanced, rows, lanes, scales.row_std);
    update_scales(scales.row_scale, scales.row_std, rows);
    invert(scales.row_scale, rows, scales.row_factor);
    normalize();
    kernel.lane_deviations(balanced, rows, lanes, scales.lane_std);
    kernel.row_deviations(balanced, rows, lanes, scales.row_std);
    const float now = imbalance();
    if (!(now <= best)) continue;
    best = now;
    std::copy_n(scales.lane_scale, lanes, scales.best_lane_scale);
    std::copy_n(scales.row_scale, rows, scales.best_row_scale);
  }
  invert(scales.best_lane_scale, lanes, scales.lane_factor);
  invert(scales.best_row_scale, rows, scales.row_factor);
  normalize();
}

}  // namespace kvarn
