// The encoder arithmetic of the format page for `fast` and `best`, one row and one lane at a time.
#include "reference/search.hpp"

#include <algorithm>
#include <cmath>

#include "reference/rotation.hpp"

namespace kvarn::reference {
namespace {

constexpr float kLeastStep = 0x1p-14f;
constexpr float kDamping = 0.02f;

// A line through the weighted centre of values and codes.
struct Fit {
  float step;
  float value_centre;
  float code_centre;
  float gain;  // of the values' weighted square that it explains; 0 if the codes say nothing
};

class Search {
 public:
  Search(const FloatTile& tile, const SearchOrder& order)
      : tile_(tile),
        order_(order),
        top_(static_cast<float>((1u << order.bits) - 1u)),
        lane_exponent_(std::clamp(order.exponent, -4, 8)),
        errors_(tile.rows, tile.lanes),
        decoded_(tile.rows, tile.lanes),
        lane_scale_(tile.lanes),
        step_(tile.rows),
        zero_(tile.rows) {
    found_.codes.resize(tile.values.size());
    found_.row_scale.resize(tile.rows);
    found_.row_zero.resize(tile.rows);
    found_.lane_scale.resize(tile.lanes);
  }

  SearchedCodes run() {
    first_pass();
    for (int refinement = 0; refinement < order_.refinements; ++refinement) refine();
    return found_;
  }

 private:
  float factor(std::uint32_t lane) const { return 1.0f / lane_scale_[lane]; }
  float weight(std::uint32_t lane) const { return lane_scale_[lane] * lane_scale_[lane]; }

  void set_lane_scale(std::uint32_t lane, float scale) {
    const float bounded = std::clamp(scale, 0x1p-10f, 0x1p7f);
    found_.lane_scale[lane] = float_to_half(std::ldexp(bounded, lane_exponent_));
    lane_scale_[lane] = std::ldexp(half_to_float(found_.lane_scale[lane]), -lane_exponent_);
  }

  float nearest_code(float exact) const { return std::nearbyint(std::clamp(exact, 0.0f, top_)); }

  // The least-squares line for codes of a row of scaled values.
  Fit fit(const std::vector<float>& scaled, const std::vector<float>& codes, float middle) const {
    const auto sum = [&](auto term) {
      return sum_row(tile_.lanes, [&](std::uint32_t lane) { return term(lane, weight(lane)); });
    };
    const auto code = [&](std::uint32_t lane) { return codes[lane] - top_ * 0.5f; };
    const auto distance = [&](std::uint32_t lane) { return scaled[lane] - middle; };
    const float total = sum([](std::uint32_t, float w) { return w; });
    const float value_sum = sum([&](std::uint32_t lane, float w) { return w * distance(lane); });
    const float code_sum = sum([&](std::uint32_t lane, float w) { return w * code(lane); });
    const float code_code = sum([&](std::uint32_t lane, float w) { return (w * code(lane)) * code(lane); });
    const float code_value = sum([&](std::uint32_t lane, float w) { return (w * code(lane)) * distance(lane); });
    const float numerator = code_value - code_sum * (value_sum / total);
    const float denominator = code_code - code_sum * (code_sum / total);
    const float value_centre = middle + value_sum / total;
    if (!(numerator > 0.0f && denominator > 0.0f)) return {kLeastStep, value_centre, top_ * 0.5f, 0.0f};
    const float step = numerator / denominator;
    return {std::max(step, kLeastStep), value_centre, code_sum / total + top_ * 0.5f, numerator * step};
  }

  // The best of five ranges, each fitted to the codes that it gives.
  Fit widest_to_narrowest(const std::vector<float>& scaled) const {
    const auto [min, max] = std::minmax_element(scaled.begin(), scaled.end());
    const float low = *min + 0.0f;
    const float high = *max;
    const float middle = (low + high) * 0.5f;
    Fit best = {kLeastStep, middle, top_ * 0.5f, 0.0f};
    for (int clip = 0; clip < 5; ++clip) {
      const float step = std::max((high - low) * (1.0f - 0.125f * static_cast<float>(clip)) / top_, kLeastStep);
      std::vector<float> codes;
      for (const float value : scaled) codes.push_back(nearest_code((value - middle) * (1.0f / step) + top_ * 0.5f));
      const Fit found = fit(scaled, codes, middle);
      if (found.gain > best.gain) best = found;
    }
    return best;
  }

  std::vector<float> scaled_row(const std::vector<float>& target) const {
    std::vector<float> scaled;
    for (std::uint32_t lane = 0; lane < tile_.lanes; ++lane) scaled.push_back(target[lane] * factor(lane));
    return scaled;
  }

  std::vector<float> codes_on_line(const std::vector<float>& scaled, float step, float zero) const {
    std::vector<float> codes;
    for (const float value : scaled) codes.push_back(nearest_code((value - zero) * (1.0f / step)));
    return codes;
  }

  // Row `row` of the tile plus weights[j] times row j of the errors, j < count.
  std::vector<float> with_errors(std::uint32_t row, const std::vector<float>& weights) const {
    std::vector<float> target(&tile_.values[std::size_t{row} * tile_.lanes],
                              &tile_.values[std::size_t{row} * tile_.lanes] + tile_.lanes);
    for (std::uint32_t other = 0; other < weights.size(); ++other) {
      for (std::uint32_t lane = 0; lane < tile_.lanes; ++lane) target[lane] += weights[other] * errors_.at(other, lane);
    }
    return target;
  }

  void settle(std::uint32_t row, const std::vector<float>& scaled, const Fit& line) {
    const int row_exponent = order_.exponent - lane_exponent_;
    HalfBits& scale = found_.row_scale[row];
    scale = float_to_half(std::ldexp(line.step, row_exponent));
    if (scale == 0) scale = 1;
    step_[row] = std::ldexp(half_to_float(scale), -row_exponent);
    const float zero = line.value_centre - step_[row] * line.code_centre;
    found_.row_zero[row] = float_to_half(std::ldexp(zero, row_exponent));
    zero_[row] = std::ldexp(half_to_float(found_.row_zero[row]), -row_exponent);
    const std::vector<float> codes = codes_on_line(scaled, step_[row], zero_[row]);
    for (std::uint32_t lane = 0; lane < tile_.lanes; ++lane) {
      found_.codes[std::size_t{row} * tile_.lanes + lane] = static_cast<std::uint8_t>(codes[lane]);
    }
    note_error(row);
  }

  std::vector<float> codes_of(std::uint32_t row) const {
    const auto first = found_.codes.begin() + std::ptrdiff_t{row} * tile_.lanes;
    return {first, first + tile_.lanes};
  }

  void note_error(std::uint32_t row) {
    const std::vector<float> codes = codes_of(row);
    for (std::uint32_t lane = 0; lane < tile_.lanes; ++lane) {
      decoded_.at(row, lane) = codes[lane] * step_[row] + zero_[row];
      errors_.at(row, lane) = tile_.at(row, lane) - decoded_.at(row, lane) * lane_scale_[lane];
    }
  }

  void first_pass() {
    for (std::uint32_t lane = 0; lane < tile_.lanes; ++lane) {
      float squares = 0.0f;
      for (std::uint32_t row = 0; row < tile_.rows; ++row) squares += tile_.at(row, lane) * tile_.at(row, lane);
      set_lane_scale(lane, std::sqrt(squares / static_cast<float>(tile_.rows)));
    }
    const FloatTile feedback = order_.moment != nullptr ? feedback_matrix(*order_.moment) : FloatTile(0, 0);
    for (std::uint32_t row = 0; row < tile_.rows; ++row) {
      std::vector<float> weights;
      for (std::uint32_t other = 0; order_.moment != nullptr && other < row; ++other) {
        weights.push_back(feedback.at(row, other));
      }
      const std::vector<float> scaled = scaled_row(with_errors(row, weights));
      const Fit first = widest_to_narrowest(scaled);
      const float zero = first.value_centre - first.step * first.code_centre;
      settle(row, scaled, fit(scaled, codes_on_line(scaled, first.step, zero), first.value_centre));
    }
  }

  void refine() {
    const auto moment = [&](std::uint32_t row, std::uint32_t other) { return order_.moment->at(row, other); };
    FloatTile measured = decoded_;  // second moment times decoded values
    for (std::uint32_t row = 0; order_.moment != nullptr && row < tile_.rows; ++row) {
      for (std::uint32_t lane = 0; lane < tile_.lanes; ++lane) {
        float sum = 0.0f;
        for (std::uint32_t other = 0; other < tile_.rows; ++other) sum += moment(row, other) * decoded_.at(other, lane);
        measured.at(row, lane) = sum;
      }
    }
    for (std::uint32_t lane = 0; lane < tile_.lanes; ++lane) {
      float with_tile = 0.0f;
      float with_itself = 0.0f;
      for (std::uint32_t row = 0; row < tile_.rows; ++row) {
        with_tile += measured.at(row, lane) * tile_.at(row, lane);
        with_itself += measured.at(row, lane) * decoded_.at(row, lane);
      }
      if (with_tile > 0.0f && with_itself > 0.0f) set_lane_scale(lane, with_tile / with_itself);
    }
    for (std::uint32_t row = 0; row < tile_.rows; ++row) note_error(row);
    for (std::uint32_t row = 0; row < tile_.rows; ++row) {
      std::vector<float> weights;
      for (std::uint32_t other = 0; order_.moment != nullptr && other < tile_.rows; ++other) {
        weights.push_back(other == row ? 0.0f : moment(row, other) * (1.0f / moment(row, row)));
      }
      const std::vector<float> scaled = scaled_row(with_errors(row, weights));
      settle(row, scaled, fit(scaled, codes_of(row), zero_[row] + step_[row] * (top_ * 0.5f)));
    }
  }

  const FloatTile& tile_;
  const SearchOrder& order_;
  float top_;
  int lane_exponent_;
  FloatTile errors_;
  FloatTile decoded_;
  std::vector<float> lane_scale_;
  std::vector<float> step_;
  std::vector<float> zero_;
  SearchedCodes found_;
};

void rotate_rows(FloatTile& tile) {
  for (std::uint32_t row = 0; row < tile.rows; ++row) {
    rotate(std::span(tile.values).subspan(std::size_t{row} * tile.lanes, tile.lanes));
  }
}

}  // namespace

std::optional<SecondMoment> second_moment(const Moments& moments, std::uint32_t dim) {
  if (!(moments.weight > 0.0f)) return std::nullopt;
  SecondMoment moment(dim, dim);
  for (std::uint32_t row = 0; row < dim; ++row) {
    for (std::uint32_t column = 0; column < dim; ++column) {
      for (std::size_t head = 0; head < moments.sums.size(); head += dim) {
        moment.at(row, column) += moments.sums[head + row] / moments.weight * moments.sums[head + column];
      }
    }
    moment.at(row, row) = std::max(moment.at(row, row), moments.squares[row]);
  }
  rotate_rows(moment);
  SecondMoment turned(dim, dim);
  for (std::uint32_t row = 0; row < dim; ++row) {
    for (std::uint32_t column = 0; column < dim; ++column) turned.at(row, column) = moment.at(column, row);
  }
  rotate_rows(turned);
  float trace = 0.0f;
  for (std::uint32_t row = 0; row < dim; ++row) trace += turned.at(row, row);
  const float factor = static_cast<float>(dim) / trace;
  if (!(trace > 0.0f) || !std::isfinite(trace) || !std::isfinite(factor)) return std::nullopt;
  for (float& value : turned.values) value *= factor;
  for (std::uint32_t row = 0; row < dim; ++row) turned.at(row, row) += kDamping;
  return turned;
}

FloatTile feedback_matrix(const SecondMoment& moment) {
  FloatTile work = moment;
  FloatTile feedback(moment.rows, moment.rows);
  for (std::uint32_t last = moment.rows; last-- > 0;) {
    const float factor = 1.0f / work.at(last, last);
    feedback.at(last, last) = 1.0f;
    for (std::uint32_t row = 0; row < last; ++row) {
      feedback.at(last, row) = work.at(last, row) * factor;
      for (std::uint32_t column = 0; column <= row; ++column) {
        work.at(row, column) += -feedback.at(last, row) * work.at(last, column);
      }
    }
  }
  return feedback;
}

SearchedCodes search(const FloatTile& tile, const SearchOrder& order) { return Search(tile, order).run(); }

}  // namespace kvarn::reference
