// Dual-axis variance normalization (VarN) in single precision, with every sum in the order of the format page.
// Part of the scalar truth that only tests link; kernels must reproduce these bits.
#pragma once

#include <vector>

#include "reference/float_tile.hpp"

namespace kvarn::reference {

inline constexpr int kVarnIterations = 8;
inline constexpr float kMinScale = 0.74081822f;  // e^-0.3, the lower clamp of a log scale in the published method
inline constexpr float kMaxScale = 22026.4658f;  // e^10, the upper one
inline constexpr float kMinDeviation = 1e-3f;    // clamps of one iteration's standard deviation
inline constexpr float kMaxDeviation = 1e3f;

// One scale per row and per lane; the balanced tile is (tile / lane_scale) / row_scale.
struct Balance {
  std::vector<float> row_scale;   // [rows]
  std::vector<float> lane_scale;  // [lanes]
};

// The scales of the iterate with the smallest imbalance (a tie goes to the later one), scales of one if none is
// smaller.
Balance find_balance(const FloatTile& tile, int iterations = kVarnIterations);

// (tile * 1/lane_scale) * 1/row_scale, in this order, with the inverses rounded to single precision.
FloatTile apply_balance(const FloatTile& tile, const Balance& balance);

// Unbiased standard deviations: [rows], [lanes].
std::vector<float> row_deviations(const FloatTile& tile);
std::vector<float> lane_deviations(const FloatTile& tile);

// max(lane_std)/min(lane_std) + max(row_std)/min(row_std), the minima at least 1e-8.
float imbalance(const std::vector<float>& lane_std, const std::vector<float>& row_std);

// floor(log2(root mean square)); 0 for a tile of zeros.
int scale_exponent(const FloatTile& tile);

}  // namespace kvarn::reference
