// What the queries that read one KV head's keys have looked like so far: enough to say which errors of a key the scores
// will see. Knows nothing of where queries come from.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kvarn {

// Weighted moments of un-rotated queries, after the position encoding, as they meet the keys. The second moment that
// they stand for is, summed over the heads of the group,
//   diag(squares - sum over h of sums[h]^2 / weight) + sum over h of sums[h] sums[h]^T / weight:
// channels vary independently around the mean of each head. Position encodings turn channels through all angles, which
// leaves little correlation between them but for the mean of the slow ones (docs/decisions/0009).
struct QueryMoments {
  const float* squares = nullptr;  // [dim], sum of weight * q[c]^2 over all queries of all heads
  const float* sums = nullptr;     // [heads, dim], sum of weight * q[c] over the queries of one head
  std::uint32_t heads = 0;         // query heads that share the KV head
  float weight = 0.0f;             // sum of the weights of one head's queries; 0: no query seen
};

}  // namespace kvarn
