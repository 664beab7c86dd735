#include "codec/lane_importance.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/kernel_table.hpp"

namespace kvarn {
namespace {

constexpr float kAttentionCounts = 8.0f;

}  // namespace

void lane_importance(const QueryMoments& moments, const RotatedKeys& keys, float* query, float* scores,
                     float* importance) {
  const KernelTable& kernel = kernels();
  const float unit = keys.size / std::sqrt(static_cast<float>(keys.rows)) / moments.weight;
  const float share = kAttentionCounts * static_cast<float>(keys.lanes) / static_cast<float>(moments.heads);
  std::fill_n(importance, keys.lanes, 1.0f);
  for (std::uint32_t head = 0; head < moments.heads; ++head) {
    std::copy_n(moments.sums + head * keys.rows, keys.rows, query);
    kernel.rotate(query, 1, keys.rows);
    kernel.add_rows(nullptr, {keys.values, query, keys.rows, keys.lanes}, scores);
    kernel.scale_values(scores, keys.lanes, unit);
    SoftmaxState state;
    kernel.softmax_rows(scores, keys.lanes, 1, keys.lanes, &state);
    const float sum = kernel.sum_values(scores, keys.lanes);
    if (!std::isfinite(sum) || !(sum > 0.0f)) continue;
    const float factor = share / sum;
    kernel.add_rows(importance, {scores, &factor, 1, keys.lanes}, importance);
  }
}

}  // namespace kvarn
