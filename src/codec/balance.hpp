// Dual-axis variance normalization (VarN): the scales that even out a tile's deviations along rows and lanes.
// Sits on kernels; knows nothing of codes, records or caches. Algorithm: KVarN (arXiv 2606.03458), in the
// multiplicative form of docs/format/tile_record.md.
#pragma once

#include <cstddef>

namespace kvarn {

// The scales under search and the best so far, and the factors (1 / scale) that kernels multiply with.
// Each array has as many values as the tile has lanes or rows.
struct BalanceScales {
  float* lane_scale = nullptr;
  float* row_scale = nullptr;
  float* best_lane_scale = nullptr;
  float* best_row_scale = nullptr;
  float* lane_factor = nullptr;
  float* row_factor = nullptr;
  float* lane_std = nullptr;
  float* row_std = nullptr;
};

inline constexpr std::size_t kBalanceArraysPerAxis = 4;

// Finds the scales of tile[rows, lanes] with the least imbalance into best_lane_scale and best_row_scale (a tie goes to
// the later iterate) and leaves the balanced tile in balanced[rows, lanes].
void balance_tile(const float* tile, std::size_t rows, std::size_t lanes, const BalanceScales& scales, float* balanced);

}  // namespace kvarn
