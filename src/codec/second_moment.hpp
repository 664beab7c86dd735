// From what the queries of a KV head have looked like to how much each error of a K tile matters.
#pragma once

#include <cstddef>

#include "codec/query_moments.hpp"

namespace kvarn {

// Fills out[dim, dim] with the second moment of the rotated queries, scaled to a mean diagonal of one, with a damping
// of 0.02 added to the diagonal: directions not seen yet count a little too. `work` is of the same size. False, with
// out undefined, if no query was seen or the moments are not finite.
bool rotated_second_moment(const QueryMoments& moments, std::size_t dim, float* work, float* out);

}  // namespace kvarn
