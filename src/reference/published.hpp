// The published normalization and rounding word for word: logarithms of scales, double precision (arXiv 2606.03458).
// Shows in tests that the single-precision `official` level computes the same thing. Linked by tests only.
#pragma once

#include <cstdint>
#include <vector>

#include "reference/float_tile.hpp"

namespace kvarn::reference {

// value = (code * row_scale + row_zero) * lane_scale.
struct PublishedTile {
  std::vector<double> row_scale;       // [rows], varn_row * scale
  std::vector<double> row_zero;        // [rows], varn_row * lo
  std::vector<double> lane_scale;      // [lanes], varn_lane
  std::vector<double> unrounded_code;  // [rows, lanes], before rounding and clamping
};

PublishedTile encode_published(const FloatTile& rotated, std::uint32_t bits, int iterations);

}  // namespace kvarn::reference
