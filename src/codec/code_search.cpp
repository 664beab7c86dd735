#include "codec/code_search.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/kernel_table.hpp"

namespace kvarn {
namespace {

constexpr float kLeastLaneScale = 0x1p-10f;
constexpr float kLargestLaneScale = 0x1p7f;

// One search: the tile, the measure and the state as they belong together.
class CodeSearch {
 public:
  CodeSearch(const SearchedTile& tile, const ErrorMeasure& measure, const SearchState& state)
      : tile_(tile),
        measure_(measure),
        state_(state),
        top_(static_cast<float>((1u << tile.bits) - 1u)),
        lane_unit_(std::ldexp(1.0f, tile.lane_exponent)),
        row_unit_(std::ldexp(1.0f, tile.row_exponent)) {}

  void begin();
  void refine();

 private:
  const float* row(std::size_t index) const { return tile_.values + index * tile_.lanes; }
  std::uint8_t* codes(std::size_t index) const { return state_.codes + index * tile_.lanes; }
  RowTarget target(const float* values) const {
    return {values, state_.lane_factor, state_.lane_weight, tile_.lanes, weight_};
  }
  void set_lane_scale(std::size_t lane, float scale);
  void lanes_changed();
  void settle_row(std::size_t index, const RowTarget& wanted, const LineFit& fit);
  void note_error(std::size_t index);
  void refine_lanes();
  void refine_row(std::size_t index);

  const SearchedTile& tile_;
  const ErrorMeasure& measure_;
  const SearchState& state_;
  const KernelTable& kernel_ = kernels();
  float top_;
  float weight_ = 0.0f;
  float lane_unit_;  // a stored lane scale is the lane scale times this
  float row_unit_;
};

void CodeSearch::set_lane_scale(std::size_t lane, float scale) {
  const float bounded = std::clamp(scale, kLeastLaneScale, kLargestLaneScale);
  state_.lane_field[lane] = float_to_half(bounded * lane_unit_);
  state_.lane_scale[lane] = half_to_float(state_.lane_field[lane]) / lane_unit_;
}

void CodeSearch::lanes_changed() {
  for (std::size_t lane = 0; lane < tile_.lanes; ++lane) {
    const float scale = state_.lane_scale[lane];
    state_.lane_factor[lane] = 1.0f / scale;
    state_.lane_weight[lane] = scale * scale;
  }
  weight_ = kernel_.sum_values(state_.lane_weight, tile_.lanes);
}

// Rounds the line to what the record can hold and takes the codes nearest to it.
void CodeSearch::settle_row(std::size_t index, const RowTarget& wanted, const LineFit& fit) {
  const auto rounded = [&](float value, HalfBits& field) {
    field = float_to_half(value * row_unit_);
    return half_to_float(field) / row_unit_;
  };
  HalfBits& scale = state_.row_scale[index];
  state_.step[index] = rounded(fit.step, scale);
  if (scale == 0) {  // a tile too small for any step: the least one there is
    scale = 1;
    state_.step[index] = half_to_float(scale) / row_unit_;
  }
  state_.zero[index] = rounded(fit.value_centre - state_.step[index] * fit.code_centre, state_.row_zero[index]);
  const Line line = {state_.step[index], state_.zero[index]};
  kernel_.round_to_line(wanted, line, top_, codes(index));
  kernel_.decode_line(codes(index), tile_.lanes, line, state_.decoded + index * tile_.lanes);
  note_error(index);
}

void CodeSearch::note_error(std::size_t index) {
  const float* decoded = state_.decoded + index * tile_.lanes;
  kernel_.line_errors(row(index), decoded, state_.lane_scale, tile_.lanes, state_.errors + index * tile_.lanes);
}

void CodeSearch::begin() {
  kernel_.lane_products(tile_.values, tile_.values, tile_.rows, tile_.lanes, state_.products);
  for (std::size_t lane = 0; lane < tile_.lanes; ++lane) {
    set_lane_scale(lane, std::sqrt(state_.products[lane] / static_cast<float>(tile_.rows)));
  }
  lanes_changed();
  for (std::size_t index = 0; index < tile_.rows; ++index) {
    const float* values = row(index);
    if (measure_.feedback != nullptr && index > 0) {
      kernel_.add_rows(values, {state_.errors, measure_.feedback + index * tile_.rows, index, tile_.lanes},
                       state_.target);
      values = state_.target;
    }
    const RowTarget wanted = target(values);
    const LineFit first = kernel_.search_line(wanted, top_);
    const Line line = {first.step, first.value_centre - first.step * first.code_centre};
    kernel_.round_to_line(wanted, line, top_, codes(index));
    settle_row(index, wanted, kernel_.fit_line(wanted, codes(index), top_, first.value_centre));
  }
}

// The scale of each lane that leaves the least error of the codes and lines as they are.
void CodeSearch::refine_lanes() {
  float* with_tile = state_.products;
  float* with_itself = state_.products + tile_.lanes;
  if (measure_.second_moment == nullptr) {
    kernel_.lane_products(state_.decoded, tile_.values, tile_.rows, tile_.lanes, with_tile);
    kernel_.lane_products(state_.decoded, state_.decoded, tile_.rows, tile_.lanes, with_itself);
  } else {  // the errors are made anew below: until then their place holds second_moment * decoded
    for (std::size_t index = 0; index < tile_.rows; ++index) {
      const float* weights = measure_.second_moment + index * tile_.rows;
      kernel_.add_rows(nullptr, {state_.decoded, weights, tile_.rows, tile_.lanes},
                       state_.errors + index * tile_.lanes);
    }
    kernel_.lane_products(state_.errors, tile_.values, tile_.rows, tile_.lanes, with_tile);
    kernel_.lane_products(state_.errors, state_.decoded, tile_.rows, tile_.lanes, with_itself);
  }
  for (std::size_t lane = 0; lane < tile_.lanes; ++lane) {
    if (with_tile[lane] > 0.0f && with_itself[lane] > 0.0f) set_lane_scale(lane, with_tile[lane] / with_itself[lane]);
  }
  lanes_changed();
  for (std::size_t index = 0; index < tile_.rows; ++index) note_error(index);
}

// The best line for the row's codes, then the best codes for that line, all other rows as they are.
void CodeSearch::refine_row(std::size_t index) {
  const float* values = row(index);
  if (measure_.second_moment != nullptr) {
    const float* moment = measure_.second_moment + index * tile_.rows;
    const float factor = 1.0f / moment[index];
    for (std::size_t other = 0; other < tile_.rows; ++other) {
      state_.row_weights[other] = other == index ? 0.0f : moment[other] * factor;
    }
    kernel_.add_rows(values, {state_.errors, state_.row_weights, tile_.rows, tile_.lanes}, state_.target);
    values = state_.target;
  }
  const RowTarget wanted = target(values);
  const float middle = state_.zero[index] + state_.step[index] * (top_ * 0.5f);
  settle_row(index, wanted, kernel_.fit_line(wanted, codes(index), top_, middle));
}

void CodeSearch::refine() {
  refine_lanes();
  for (std::size_t index = 0; index < tile_.rows; ++index) refine_row(index);
}

}  // namespace

void search_codes(const SearchedTile& tile, const ErrorMeasure& measure, int refinements, const SearchState& state) {
  CodeSearch search(tile, measure, state);
  search.begin();
  for (int refinement = 0; refinement < refinements; ++refinement) search.refine();
}

// Eliminates the last row first, so that the first row's error can be made good by all that follow.
void factor_second_moment(const float* second_moment, std::size_t rows, float* work, float* feedback) {
  const KernelTable& kernel = kernels();
  std::copy_n(second_moment, rows * rows, work);
  std::fill_n(feedback, rows * rows, 0.0f);
  for (std::size_t last = rows; last-- > 0;) {
    float* found = feedback + last * rows;
    kernel.eliminate(work, rows, last, found);
    found[last] = 1.0f;
  }
}

}  // namespace kvarn
