#include "interleaved_timer.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

namespace kvarn::bench {

Spread spread_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  const double median = values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
  return {median, values.front(), values.back()};
}

std::size_t InterleavedTimer::add(std::function<void()> call) {
  contestants_.push_back({std::move(call), calls_at_once_, {}});
  return contestants_.size() - 1;
}

double InterleavedTimer::time(const Contestant& contestant) {
  const auto start = std::chrono::steady_clock::now();
  for (unsigned call = 0; call < contestant.calls; ++call) contestant.call();
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
  return took.count() / contestant.calls;
}

// The first call pays for page faults and allocations. The shortest of a few others says how many calls a sample needs:
// one that was interrupted would make the samples too short.
void InterleavedTimer::warm_up(Contestant& contestant) const {
  constexpr int kTrials = 3;
  time(contestant);
  double shortest = time(contestant);
  for (int trial = 1; trial < kTrials && shortest < 10 * sample_milliseconds_; ++trial) {
    shortest = std::min(shortest, time(contestant));
  }
  const double rounds_of_copies = std::ceil(sample_milliseconds_ / (shortest * contestant.calls));
  contestant.calls *= std::max(1u, static_cast<unsigned>(rounds_of_copies));
}

void InterleavedTimer::run(int rounds) {
  for (Contestant& contestant : contestants_) warm_up(contestant);
  for (int round = 0; round < rounds; ++round) {
    for (Contestant& contestant : contestants_) contestant.samples.push_back(time(contestant));
  }
}

double InterleavedTimer::ratio(std::size_t contestant, std::size_t other) const {
  std::vector<double> ratios;
  for (std::size_t round = 0; round < contestants_[contestant].samples.size(); ++round) {
    ratios.push_back(contestants_[contestant].samples[round] / contestants_[other].samples[round]);
  }
  return spread_of(std::move(ratios)).median;
}

}  // namespace kvarn::bench
