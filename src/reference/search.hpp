// The levels `plain`, `fast` and `best`: a line through each row, error feedback between rows, a second look at each
// row. Part of the scalar truth that only tests link; kernels must reproduce these bits.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/half.hpp"
#include "reference/float_tile.hpp"

namespace kvarn::reference {

// Moments of the un-rotated queries of one KV head, weighted: squares[c], sums[head * dim + c], and the weight of one
// head's queries.
struct Moments {
  std::vector<float> squares;
  std::vector<float> sums;
  float weight = 0.0f;
};

// How much an error of one lane, a column of the tile, matters: error^T second_moment error, [rows, rows].
using SecondMoment = FloatTile;

// The second moment of the rotated queries with damping; nothing without queries.
std::optional<SecondMoment> second_moment(const Moments& moments, std::uint32_t dim);

// How much each token of a rotated K tile, divided by 2^exponent, matters: 1 and 8 times its share of the attention of
// every head's mean query, compared with an even share. Needs moments with a positive weight.
std::vector<float> lane_importance(const Moments& moments, const FloatTile& tile, int exponent);

// Unit lower triangular M with second_moment = M^T D M.
FloatTile feedback_matrix(const SecondMoment& moment);

// What a search finds: fields as the record holds them, halves or single bytes.
struct SearchedCodes {
  std::vector<std::uint8_t> codes;  // [rows, lanes]
  std::vector<std::uint16_t> row_scale;
  std::vector<std::uint16_t> row_zero;  // of single bytes: the middle
  std::vector<std::uint16_t> lane_scale;
};

// How a tile is searched. moment may be nullptr and importance empty: every error counts alike.
struct SearchOrder {
  std::uint32_t bits;
  int exponent;  // the tile's values were multiplied with 2^-exponent
  const SecondMoment* moment;
  std::vector<float> importance;  // of lanes
  bool refines;
  bool plain;        // no search: every row's line is that of its range
  bool byte_fields;  // the record is of version 2
};

SearchedCodes search(const FloatTile& tile, const SearchOrder& order);

}  // namespace kvarn::reference
