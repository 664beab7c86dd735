// A tile of single-precision values, row-major: what rotation, normalization and rounding of the reference pass on.
// Part of the scalar truth that only tests link; knows nothing of kernels, codec or caches.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace kvarn::reference {

// values[r * lanes + l], r < rows, l < lanes.
struct FloatTile {
  std::uint32_t rows = 0;
  std::uint32_t lanes = 0;
  std::vector<float> values;

  FloatTile(std::uint32_t row_count, std::uint32_t lane_count)
      : rows(row_count), lanes(lane_count), values(std::size_t{row_count} * lane_count) {}

  float& at(std::uint32_t row, std::uint32_t lane) { return values[std::size_t{row} * lanes + lane]; }
  float at(std::uint32_t row, std::uint32_t lane) const { return values[std::size_t{row} * lanes + lane]; }
};

// The sum of term(lane) over a row's lanes: 16 partial sums over every 16th lane, then halved four times.
template <class Term>
float sum_row(std::uint32_t lanes, Term term) {
  std::array<float, 16> partial{};
  for (std::uint32_t lane = 0; lane < lanes; ++lane) partial[lane % 16] += term(lane);
  for (std::uint32_t half = 8; half > 0; half /= 2) {
    for (std::uint32_t i = 0; i < half; ++i) partial[i] += partial[i + half];
  }
  return partial[0];
}

}  // namespace kvarn::reference
