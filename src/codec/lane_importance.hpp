// Which tokens of a K tile queries will look at, as far as queries seen before can tell.
#pragma once

#include <cstddef>

#include "codec/query_moments.hpp"

namespace kvarn {

// A rotated K tile[rows, lanes], divided by `size`: channels are rows, tokens are lanes.
struct RotatedKeys {
  const float* values;
  std::size_t rows;
  std::size_t lanes;
  float size;
};

// Fills importance[lanes]: 1 and 8 times the attention that a token can expect from the mean query of every head,
// compared with an even share, both within the tile. What attention flows to is lost first where codes are coarse: the
// first token of a text, above all. query: [rows], scores: [lanes], scratch. A head whose scores are not finite adds
// nothing. moments.weight must be positive.
void lane_importance(const QueryMoments& moments, const RotatedKeys& keys, float* query, float* scores,
                     float* importance);

}  // namespace kvarn
