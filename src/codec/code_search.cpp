#include "codec/code_search.hpp"

#include <algorithm>
#include <cmath>

#include "format/byte_fields.hpp"
#include "kernels/kernel_table.hpp"

namespace kvarn {
namespace {

constexpr float kLeastLaneScale = 0x1p-10f;
constexpr float kLargestLaneScale = 0x1p7f;

// One search: the tile, the measure and the state as they belong together.
class CodeSearch {
 public:
  CodeSearch(const SearchedTile& tile, const ErrorMeasure& measure, LineSearch lines, const SearchState& state)
      : tile_(tile),
        shape_(tile.shape),
        measure_(measure),
        state_(state),
        keeps_errors_(lines == LineSearch::kRefined || measure.feedback != nullptr),
        top_(static_cast<float>((1u << tile.shape.bits) - 1u)),
        row_unit_(std::ldexp(1.0f, tile.row_exponent)) {}

  void scale_lanes();
  void scale_values();
  void take_ranges();
  void search_rows();
  void refine_rows();

 private:
  const float* row(std::size_t index) const { return state_.scaled + index * shape_.lanes; }
  std::uint8_t* codes(std::size_t index) const { return state_.codes + index * shape_.lanes; }
  RowTarget target(const float* values) const { return {values, state_.lane_weight, shape_.lanes, weight_}; }
  // The row and what it should make good: weights[r] times row r of the errors, r < count.
  RowTarget target(std::size_t index, const float* weights, std::size_t count) const;
  void settle_row(std::size_t index, const RowTarget& wanted, const LineFit& fit);
  // Write a field as the record holds it, and give what it then says.
  float store_lane_scale(std::size_t lane, float wanted);
  Line store_line(std::size_t index, const LineFit& fit);
  Line store_line_in_halves(std::size_t index, const LineFit& fit);
  Line store_line_in_bytes(std::size_t index, const LineFit& fit);
  HalfBits* halves(std::size_t offset) const { return reinterpret_cast<HalfBits*>(state_.fields + offset); }

  const SearchedTile& tile_;
  const TileShape shape_;
  const ErrorMeasure& measure_;
  const SearchState& state_;
  const KernelTable& kernel_ = kernels();
  bool keeps_errors_;  // some other row will make them good
  float top_;
  float weight_ = 0.0f;
  float row_unit_;  // a stored step or zero is the line's times this
};

float CodeSearch::store_lane_scale(std::size_t lane, float wanted) {
  if (shape_.version == RecordVersion::kBytes) {
    std::uint8_t& byte = state_.fields[lane_scale_offset(shape_) + lane];
    byte = nearest_scale(kLaneByteScale, wanted);
    return scale_of_byte(kLaneByteScale, byte);
  }
  HalfBits& half = halves(lane_scale_offset(shape_))[lane];
  half = float_to_half(wanted);
  return half_to_float(half);
}

void CodeSearch::scale_lanes() {
  const float lane_unit = std::ldexp(1.0f, tile_.lane_exponent);
  kernel_.lane_squares(tile_.values, shape_.rows, shape_.lanes, state_.lane_weight);
  for (std::size_t lane = 0; lane < shape_.lanes; ++lane) {
    const float rms = std::sqrt(state_.lane_weight[lane] / static_cast<float>(shape_.rows));
    const float wanted = std::clamp(rms, kLeastLaneScale, kLargestLaneScale) * lane_unit;
    const float scale = store_lane_scale(lane, wanted) / lane_unit;
    state_.lane_factor[lane] = 1.0f / scale;
    const float importance = measure_.importance != nullptr ? measure_.importance[lane] : 1.0f;
    state_.lane_weight[lane] = (scale * scale) * importance;
  }
}

void CodeSearch::scale_values() {
  weight_ = kernel_.sum_values(state_.lane_weight, shape_.lanes);
  std::fill_n(state_.row_weights, shape_.rows, 1.0f);
  kernel_.normalize(tile_.values, shape_.rows, shape_.lanes, state_.lane_factor, state_.row_weights, state_.scaled);
}

RowTarget CodeSearch::target(std::size_t index, const float* weights, std::size_t count) const {
  kernel_.add_rows(row(index), {state_.errors, weights, count, shape_.lanes}, state_.target);
  return target(state_.target);
}

Line CodeSearch::store_line_in_halves(std::size_t index, const LineFit& fit) {
  const auto rounded = [&](float value, HalfBits& field) {
    field = float_to_half(value * row_unit_);
    return half_to_float(field) / row_unit_;
  };
  HalfBits& scale = halves(row_scale_offset(shape_))[index];
  Line line = {rounded(fit.step, scale), 0.0f};
  if (scale == 0) {  // a tile too small for any step: the least one there is
    scale = 1;
    line.step = half_to_float(scale) / row_unit_;
  }
  line.zero = rounded(fit.value_centre - line.step * fit.code_centre, halves(row_zero_offset(shape_))[index]);
  return line;
}

// A row far from zero needs a step that lets its middle reach it.
Line CodeSearch::store_line_in_bytes(std::size_t index, const LineFit& fit) {
  const std::uint32_t bits = shape_.bits;
  const auto middle_on = [&](float step) { return fit.value_centre - step * (fit.code_centre - top_ * 0.5f); };
  std::uint8_t& scale = state_.fields[row_scale_offset(shape_) + index];
  scale = nearest_scale(row_byte_scale(bits), std::max(fit.step, least_step(bits, middle_on(fit.step))));
  const float step = scale_of_byte(row_byte_scale(bits), scale);
  const std::uint8_t middle = nearest_middle(bits, step, middle_on(step));
  state_.fields[row_zero_offset(shape_) + index] = middle;
  return {step, zero_of_middle(bits, step, middle)};
}

Line CodeSearch::store_line(std::size_t index, const LineFit& fit) {
  return shape_.version == RecordVersion::kBytes ? store_line_in_bytes(index, fit) : store_line_in_halves(index, fit);
}

// Rounds the line to what the record can hold and takes the codes nearest to it.
void CodeSearch::settle_row(std::size_t index, const RowTarget& wanted, const LineFit& fit) {
  const Line line = store_line(index, fit);
  state_.middle[index] = line.zero + line.step * (top_ * 0.5f);
  kernel_.round_to_line(wanted, line, top_, codes(index));
  if (!keeps_errors_) return;
  kernel_.line_errors(row(index), codes(index), line, shape_.lanes, state_.errors + index * shape_.lanes);
}

void CodeSearch::take_ranges() {
  const ScaledTile scaled = {tile_.values, shape_.rows, shape_.lanes, state_.lane_factor};
  kernel_.round_to_ranges(scaled, row_unit_, top_, halves(row_scale_offset(shape_)), halves(row_zero_offset(shape_)),
                          state_.codes);
}

void CodeSearch::search_rows() {
  for (std::size_t index = 0; index < shape_.rows; ++index) {
    const bool makes_good = measure_.feedback != nullptr && index > 0;
    const RowTarget wanted =
        makes_good ? target(index, measure_.feedback + index * shape_.rows, index) : target(row(index));
    const LineFit first = kernel_.search_line(wanted, top_);
    const Line line = {first.step, first.value_centre - first.step * first.code_centre};
    settle_row(index, wanted, kernel_.fit_rounded(wanted, line, top_, first.value_centre));
  }
}

void CodeSearch::refine_rows() {
  for (std::size_t index = 0; index < shape_.rows; ++index) {
    RowTarget wanted = target(row(index));
    if (measure_.second_moment != nullptr) {
      const float* moment = measure_.second_moment + index * shape_.rows;
      const float factor = 1.0f / moment[index];
      for (std::size_t other = 0; other < shape_.rows; ++other) {
        state_.row_weights[other] = other == index ? 0.0f : moment[other] * factor;
      }
      wanted = target(index, state_.row_weights, shape_.rows);
    }
    settle_row(index, wanted, kernel_.fit_line(wanted, codes(index), top_, state_.middle[index]));
  }
}

}  // namespace

void search_codes(const SearchedTile& tile, const ErrorMeasure& measure, LineSearch lines, const SearchState& state) {
  CodeSearch search(tile, measure, lines, state);
  search.scale_lanes();
  if (lines == LineSearch::kNone) return search.take_ranges();
  search.scale_values();
  search.search_rows();
  if (lines == LineSearch::kRefined) search.refine_rows();
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
