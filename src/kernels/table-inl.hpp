// The kernels of the including translation unit's instruction set as one table.
#pragma once

#include "kernels/accumulate-inl.hpp"
#include "kernels/codes-inl.hpp"
#include "kernels/dot-inl.hpp"
#include "kernels/fields-inl.hpp"
#include "kernels/kernel_table.hpp"
#include "kernels/normalize-inl.hpp"
#include "kernels/rotate-inl.hpp"
#include "kernels/search-inl.hpp"
#include "kernels/softmax-inl.hpp"

namespace kvarn {
namespace {

constexpr KernelTable make_table(const char* name) {
  return {.name = name,
          .halves_to_floats = halves_to_floats,
          .floats_to_halves = floats_to_halves,
          .all_finite = all_finite,
          .bytes_to_scales = bytes_to_scales,
          .middles_to_zeros = middles_to_zeros,
          .bfloats_to_halves = bfloats_to_halves,
          .halves_to_bfloats = halves_to_bfloats,
          .rotate = rotate,
          .rotate_lanes = rotate_lanes,
          .transpose = transpose,
          .sum_of_squares = sum_of_squares,
          .scale_values = scale_values,
          .lane_deviations = lane_deviations,
          .row_deviations = row_deviations,
          .normalize = normalize,
          .round_rows = round_rows,
          .sum_values = sum_values,
          .lane_squares = lane_squares,
          .add_rows = add_rows,
          .search_line = search_line,
          .fit_line = fit_line,
          .fit_rounded = fit_rounded,
          .round_to_line = round_to_line,
          .round_to_ranges = round_to_ranges,
          .line_errors = line_errors,
          .eliminate = eliminate,
          .pack_codes = pack_codes,
          .decode_values = decode_values,
          .fold_vectors = fold_vectors,
          .dot_codes = dot_codes,
          .accumulate_half_rows = accumulate_half_rows,
          .accumulate_half_lanes = accumulate_half_lanes,
          .finish_scores = finish_scores,
          .softmax_rows = softmax_rows,
          .merge_states = merge_states,
          .finish_state = finish_state};
}

}  // namespace
}  // namespace kvarn
