// Asymmetric round-to-nearest (RTN): one scale and one zero per row, codes of 2 to 8 bits.
// Part of the scalar truth that only tests link; the record's half-precision fields come later (record.hpp).
#pragma once

#include <cstdint>
#include <vector>

#include "reference/float_tile.hpp"

namespace kvarn::reference {

// value = code * scale[row] + zero[row], before anything is rounded to half precision.
struct RoundedTile {
  std::vector<std::uint8_t> codes;  // [rows, lanes]
  std::vector<float> scale;         // [rows], at least 1e-10
  std::vector<float> zero;          // [rows], the row's minimum
};

// Rounds every row between its minimum and maximum; ties go to the even code.
RoundedTile round_rows(const FloatTile& tile, std::uint32_t bits);

}  // namespace kvarn::reference
