// Written from the paper's definition alone, so it shares no step with varn.cpp and rounding.cpp.
#include "reference/published.hpp"

#include <algorithm>
#include <cmath>

namespace kvarn::reference {
namespace {

using Values = std::vector<double>;

double deviation(const Values& values) {
  double mean = 0.0;
  for (const double value : values) mean += value / static_cast<double>(values.size());
  double squares = 0.0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  return std::sqrt(squares / static_cast<double>(values.size() - 1));
}

// The state of the iteration and the tile it works on.
struct State {
  const FloatTile& tile;
  Values log_row;
  Values log_lane;

  double current(std::uint32_t row, std::uint32_t lane) const {
    return static_cast<double>(tile.at(row, lane)) / std::exp(log_lane[lane]) / std::exp(log_row[row]);
  }

  Values row_std() const {
    Values result;
    for (std::uint32_t row = 0; row < tile.rows; ++row) {
      Values values;
      for (std::uint32_t lane = 0; lane < tile.lanes; ++lane) values.push_back(current(row, lane));
      result.push_back(deviation(values));
    }
    return result;
  }

  Values lane_std() const {
    Values result;
    for (std::uint32_t lane = 0; lane < tile.lanes; ++lane) {
      Values values;
      for (std::uint32_t row = 0; row < tile.rows; ++row) values.push_back(current(row, lane));
      result.push_back(deviation(values));
    }
    return result;
  }

  double imbalance() const {
    const Values lanes = lane_std();
    const Values rows = row_std();
    const auto ratio = [](const Values& std) {
      return *std::max_element(std.begin(), std.end()) / std::max(*std::min_element(std.begin(), std.end()), 1e-8);
    };
    return ratio(lanes) + ratio(rows);
  }
};

void update(Values& logs, const Values& deviations) {
  for (std::size_t i = 0; i < logs.size(); ++i) {
    logs[i] = std::clamp(logs[i] + std::log(std::clamp(deviations[i], 1e-3, 1e3)), -0.3, 10.0);
  }
}

State normalize(const FloatTile& tile, int iterations) {
  State state{tile, Values(tile.rows, 0.0), Values(tile.lanes, 0.0)};
  Values best_row = state.log_row;
  Values best_lane = state.log_lane;
  double best = state.imbalance();
  for (int iteration = 0; iteration < iterations; ++iteration) {
    update(state.log_lane, state.lane_std());
    update(state.log_row, state.row_std());
    const double now = state.imbalance();
    if (now <= best) {
      best = now;
      best_row = state.log_row;
      best_lane = state.log_lane;
    }
  }
  return State{tile, best_row, best_lane};
}

}  // namespace

PublishedTile encode_published(const FloatTile& rotated, std::uint32_t bits, int iterations) {
  const State state = normalize(rotated, iterations);
  PublishedTile result;
  for (const double log_lane : state.log_lane) result.lane_scale.push_back(std::exp(log_lane));
  for (std::uint32_t row = 0; row < rotated.rows; ++row) {
    Values balanced;
    for (std::uint32_t lane = 0; lane < rotated.lanes; ++lane) balanced.push_back(state.current(row, lane));
    const double lo = *std::min_element(balanced.begin(), balanced.end());
    const double hi = *std::max_element(balanced.begin(), balanced.end());
    const double scale = std::max((hi - lo) / ((1u << bits) - 1u), 1e-10);
    for (const double value : balanced) result.unrounded_code.push_back((value - lo) / scale);
    result.row_scale.push_back(std::exp(state.log_row[row]) * scale);
    result.row_zero.push_back(std::exp(state.log_row[row]) * lo);
  }
  return result;
}

}  // namespace kvarn::reference
