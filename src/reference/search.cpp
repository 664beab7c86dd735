// The encoder arithmetic of the format page for `plain`, `fast` and `best`, one row and one lane at a time.
#include "reference/search.hpp"

#include <algorithm>
#include <cmath>

#include "reference/packing.hpp"
#include "reference/rotation.hpp"

namespace kvarn::reference {
namespace {

constexpr float kLeastStep = 0x1p-14f;
constexpr float kDamping = 0.02f;

// How codes and values of a row go together, around their weighted centres.
struct Relation {
  float value_centre;
  float code_centre;
  float value_square;
  float covariance;
  float code_square;

  bool is_line() const { return covariance > 0.0f && code_square > 0.0f; }
  float least_squares_step() const { return covariance / code_square; }
};

// A line through both centres.
struct Fit {
  float step;
  float value_centre;
  float code_centre;
};

float store_half(float wanted, std::uint16_t& field) {
  field = float_to_half(wanted);
  return half_to_float(field);
}

// The nearest scale of one byte, ties to the even byte.
float store_byte(const ByteScaleKind& kind, float wanted, std::uint16_t& field) {
  const float parts = std::ldexp(1.0f, kind.fraction_bits);
  int exponent = 0;
  const float fraction = std::frexp(wanted, &exponent) * 2.0f - 1.0f;  // wanted = 2^(exponent - 1) * (1 + fraction)
  const float byte = static_cast<float>(exponent - 1 - kind.least_exponent) * parts + std::nearbyint(fraction * parts);
  field = static_cast<std::uint16_t>(std::clamp(byte, 0.0f, 255.0f));
  return byte_scale(kind, static_cast<std::uint8_t>(field));
}

class Search {
 public:
  Search(const FloatTile& tile, const SearchOrder& order)
      : order_(order),
        top_(static_cast<float>((1u << order.bits) - 1u)),
        lane_exponent_(order.byte_fields ? order.exponent : std::clamp(order.exponent, -4, 8)),
        scaled_(tile.rows, tile.lanes),
        errors_(tile.rows, tile.lanes),
        weight_(tile.lanes),
        step_(tile.rows),
        zero_(tile.rows) {
    found_.codes.resize(tile.values.size());
    found_.row_scale.resize(tile.rows);
    found_.row_zero.resize(tile.rows);
    found_.lane_scale.resize(tile.lanes);
    scale_lanes(tile);
  }

  SearchedCodes run() {
    if (order_.plain) {
      take_ranges();
      return found_;
    }
    search_rows();
    if (order_.refines) refine_rows();
    return found_;
  }

 private:
  void scale_lanes(const FloatTile& tile) {
    for (std::uint32_t lane = 0; lane < tile.lanes; ++lane) {
      float squares = 0.0f;
      for (std::uint32_t row = 0; row < tile.rows; ++row) squares += tile.at(row, lane) * tile.at(row, lane);
      const float rms = std::sqrt(squares / static_cast<float>(tile.rows));
      const float wanted = std::ldexp(std::clamp(rms, 0x1p-10f, 0x1p7f), lane_exponent_);
      const float stored = order_.byte_fields ? store_byte(kByteLaneScale, wanted, found_.lane_scale[lane])
                                              : store_half(wanted, found_.lane_scale[lane]);
      const float scale = std::ldexp(stored, -lane_exponent_);
      weight_[lane] = (scale * scale) * (order_.importance.empty() ? 1.0f : order_.importance[lane]);
      for (std::uint32_t row = 0; row < tile.rows; ++row) scaled_.at(row, lane) = tile.at(row, lane) * (1.0f / scale);
    }
  }

  float nearest_code(float exact) const { return std::nearbyint(std::clamp(exact, 0.0f, top_)); }

  Relation relate(const std::vector<float>& values, const std::vector<float>& codes, float middle) const {
    const auto sum = [&](auto term) {
      return sum_row(scaled_.lanes, [&](std::uint32_t lane) { return term(lane, weight_[lane]); });
    };
    const auto code = [&](std::uint32_t lane) { return codes[lane] - top_ * 0.5f; };
    const auto distance = [&](std::uint32_t lane) { return values[lane] - middle; };
    const float total = sum([](std::uint32_t, float w) { return w; });
    const float value_sum = sum([&](std::uint32_t lane, float w) { return w * distance(lane); });
    const float value_value = sum([&](std::uint32_t lane, float w) { return (w * distance(lane)) * distance(lane); });
    const float code_sum = sum([&](std::uint32_t lane, float w) { return w * code(lane); });
    const float code_code = sum([&](std::uint32_t lane, float w) { return (w * code(lane)) * code(lane); });
    const float code_value = sum([&](std::uint32_t lane, float w) { return (w * code(lane)) * distance(lane); });
    return {middle + value_sum / total, code_sum / total + top_ * 0.5f, value_value - value_sum * (value_sum / total),
            code_value - code_sum * (value_sum / total), code_code - code_sum * (code_sum / total)};
  }

  Fit no_line(float centre) const { return {kLeastStep, centre, top_ * 0.5f}; }

  // The line of least squares for the codes that a range gives: the whole one, at 2 bits also narrower ones.
  Fit least_squares(const std::vector<float>& values) const {
    const auto [min, max] = std::minmax_element(values.begin(), values.end());
    const float low = *min + 0.0f;
    const float high = *max;
    const float middle = (low + high) * 0.5f;
    Fit best = no_line(middle);
    float gain = 0.0f;
    for (int clip = 0; clip < (top_ > 3.0f ? 1 : 3); ++clip) {
      const float range_step = std::max((high - low) * (1.0f - 0.125f * static_cast<float>(clip)) / top_, kLeastStep);
      std::vector<float> codes;
      for (const float value : values) {
        codes.push_back(nearest_code((value - middle) * (1.0f / range_step) + top_ * 0.5f));
      }
      const Relation found = relate(values, codes, middle);
      if (!found.is_line()) continue;
      const float step = found.least_squares_step();
      if (!(found.covariance * step > gain)) continue;
      gain = found.covariance * step;
      best = {std::max(step, kLeastStep), found.value_centre, found.code_centre};
    }
    return best;
  }

  // The line through codes and values that neither shrinks nor stretches them.
  Fit even(const std::vector<float>& values, const std::vector<float>& codes, float middle) const {
    const Relation found = relate(values, codes, middle);
    if (!found.is_line()) return no_line(found.value_centre);
    const float least = found.least_squares_step();
    const float step = std::min(std::max(found.value_square / found.covariance, least), 1.5f * least);
    return {std::max(step, kLeastStep), found.value_centre, found.code_centre};
  }

  std::vector<float> codes_on_line(const std::vector<float>& values, float step, float zero) const {
    std::vector<float> codes;
    for (const float value : values) codes.push_back(nearest_code((value - zero) * (1.0f / step)));
    return codes;
  }

  // Row `row` of the tile plus weights[j] times row j of the errors, j < count.
  std::vector<float> with_errors(std::uint32_t row, const std::vector<float>& weights) const {
    const auto first = scaled_.values.begin() + std::ptrdiff_t{row} * scaled_.lanes;
    std::vector<float> target(first, first + scaled_.lanes);
    for (std::uint32_t other = 0; other < weights.size(); ++other) {
      for (std::uint32_t lane = 0; lane < scaled_.lanes; ++lane) {
        target[lane] += weights[other] * errors_.at(other, lane);
      }
    }
    return target;
  }

  void store_line_in_halves(std::uint32_t row, const Fit& line) {
    const int row_exponent = order_.exponent - lane_exponent_;
    std::uint16_t& scale = found_.row_scale[row];
    scale = float_to_half(std::ldexp(line.step, row_exponent));
    if (scale == 0) scale = 1;
    step_[row] = std::ldexp(half_to_float(scale), -row_exponent);
    const float zero = line.value_centre - step_[row] * line.code_centre;
    zero_[row] = std::ldexp(store_half(std::ldexp(zero, row_exponent), found_.row_zero[row]), -row_exponent);
  }

  void store_line_in_bytes(std::uint32_t row, const Fit& line) {
    const auto middle_on = [&](float step) { return line.value_centre - step * (line.code_centre - top_ * 0.5f); };
    const float reach = std::fabs(middle_on(line.step)) / byte_middle_steps(order_.bits, kByteLargestMiddle);
    step_[row] = store_byte(byte_row_scale(order_.bits), std::max(line.step, reach), found_.row_scale[row]);
    const float middle = middle_on(step_[row]);
    const float distance = std::fabs(middle) / std::ldexp(step_[row], byte_middle_exponent(order_.bits));
    std::uint16_t size = 0;
    store_byte(kByteMiddleLaw, distance + 1.0f, size);
    const auto field = static_cast<std::uint8_t>(std::min<int>(size, kByteLargestMiddle) + (middle < 0.0f ? 128 : 0));
    found_.row_zero[row] = field;
    zero_[row] = byte_row_zero(order_.bits, step_[row], field);
  }

  void settle(std::uint32_t row, const std::vector<float>& values, const Fit& line) {
    order_.byte_fields ? store_line_in_bytes(row, line) : store_line_in_halves(row, line);
    const std::vector<float> codes = codes_on_line(values, step_[row], zero_[row]);
    for (std::uint32_t lane = 0; lane < scaled_.lanes; ++lane) {
      found_.codes[std::size_t{row} * scaled_.lanes + lane] = static_cast<std::uint8_t>(codes[lane]);
      errors_.at(row, lane) = scaled_.at(row, lane) - (codes[lane] * step_[row] + zero_[row]);
    }
  }

  std::vector<float> codes_of(std::uint32_t row) const {
    const auto first = found_.codes.begin() + std::ptrdiff_t{row} * scaled_.lanes;
    return {first, first + scaled_.lanes};
  }

  void take_ranges() {
    for (std::uint32_t row = 0; row < scaled_.rows; ++row) {
      const std::vector<float> values = with_errors(row, {});
      const auto [min, max] = std::minmax_element(values.begin(), values.end());
      const float low = *min + 0.0f;
      settle(row, values, {std::max((*max - low) / top_, kLeastStep), (low + *max) * 0.5f, top_ * 0.5f});
    }
  }

  void search_rows() {
    const FloatTile feedback = order_.moment != nullptr ? feedback_matrix(*order_.moment) : FloatTile(0, 0);
    for (std::uint32_t row = 0; row < scaled_.rows; ++row) {
      std::vector<float> weights;
      for (std::uint32_t other = 0; order_.moment != nullptr && other < row; ++other) {
        weights.push_back(feedback.at(row, other));
      }
      const std::vector<float> values = with_errors(row, weights);
      const Fit first = least_squares(values);
      const float zero = first.value_centre - first.step * first.code_centre;
      settle(row, values, even(values, codes_on_line(values, first.step, zero), first.value_centre));
    }
  }

  void refine_rows() {
    const auto moment = [&](std::uint32_t row, std::uint32_t other) { return order_.moment->at(row, other); };
    for (std::uint32_t row = 0; row < scaled_.rows; ++row) {
      std::vector<float> weights;
      for (std::uint32_t other = 0; order_.moment != nullptr && other < scaled_.rows; ++other) {
        weights.push_back(other == row ? 0.0f : moment(row, other) * (1.0f / moment(row, row)));
      }
      const std::vector<float> values = with_errors(row, weights);
      settle(row, values, even(values, codes_of(row), zero_[row] + step_[row] * (top_ * 0.5f)));
    }
  }

  const SearchOrder& order_;
  float top_;
  int lane_exponent_;
  FloatTile scaled_;  // the tile divided by its lane scales
  FloatTile errors_;  // of scaled_
  std::vector<float> weight_;
  std::vector<float> step_;
  std::vector<float> zero_;
  SearchedCodes found_;
};

// exp(x) for x <= 0 as the kernels count it: 2^n * 2^r with |r| <= 1/2.
float exp_nonpositive(float x) {
  if (x < -86.0f) return 0.0f;
  const float exact = x * 0x1.715476p0f;
  const float whole = std::nearbyint(exact);
  const float r = exact - whole;
  float p = r * 0x1.5bba14p-10f + 0x1.3cea88p-7f;
  for (const float term : {0x1.c6b752p-5f, 0x1.ebf9bcp-3f, 0x1.62e42ap-1f, 1.0f}) p = p * r + term;
  return std::ldexp(p, static_cast<int>(whole));
}

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

std::vector<float> lane_importance(const Moments& moments, const FloatTile& tile, int exponent) {
  const std::size_t heads = moments.sums.size() / tile.rows;
  const float unit = std::ldexp(1.0f, exponent) / std::sqrt(static_cast<float>(tile.rows)) / moments.weight;
  const float share = 8.0f * static_cast<float>(tile.lanes) / static_cast<float>(heads);
  std::vector<float> importance(tile.lanes, 1.0f);
  for (std::size_t head = 0; head < heads; ++head) {
    const auto first = moments.sums.begin() + static_cast<std::ptrdiff_t>(head * tile.rows);
    std::vector<float> query(first, first + tile.rows);
    rotate(query);
    std::vector<float> scores(tile.lanes);
    for (std::uint32_t lane = 0; lane < tile.lanes; ++lane) {
      for (std::uint32_t row = 0; row < tile.rows; ++row) scores[lane] += query[row] * tile.at(row, lane);
      scores[lane] *= unit;
    }
    const float top = *std::max_element(scores.begin(), scores.end());
    for (float& score : scores) score = exp_nonpositive(score - top);
    const float sum = sum_row(tile.lanes, [&](std::uint32_t lane) { return scores[lane]; });
    if (!std::isfinite(sum) || !(sum > 0.0f)) continue;
    for (std::uint32_t lane = 0; lane < tile.lanes; ++lane) importance[lane] += (share / sum) * scores[lane];
  }
  return importance;
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
