// Vectors folded with a tile's row scales into 8-bit digits, and their products with codes, in obvious scalar loops.
// Part of the scalar truth that only tests link: the kernels must give the same digits, levels and sums, bit for bit.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace kvarn::reference {

// digits[level][row]; a[r] * row_scale[r] is about unit * (digits[0][r] + digits[1][r] / 254).
struct Folded {
  float unit = 0.0f;
  float bias = 0.0f;
  std::vector<std::vector<std::int8_t>> digits;  // one or two levels
};

// bits: width of the codes that the digits will be multiplied with. All three vectors have the tile's rows.
Folded fold(std::span<const float> a, std::span<const float> row_scale, std::span<const float> row_zero,
            std::uint32_t bits);

// The sum over rows of digits[row] * codes[row].
std::int64_t dot(std::span<const std::int8_t> digits, std::span<const std::uint8_t> codes);

}  // namespace kvarn::reference
