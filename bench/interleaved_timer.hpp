// Times several contestants in turns, so that whatever else the machine does meets all of them alike.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace kvarn::bench {

struct Spread {
  double median;
  double min;
  double max;
};

Spread spread_of(std::vector<double> values);

class InterleavedTimer {
 public:
  // A sample repeats `call` until it lasts at least `sample_milliseconds`, in whole multiples of `calls_at_once`.
  InterleavedTimer(double sample_milliseconds, unsigned calls_at_once)
      : sample_milliseconds_(sample_milliseconds), calls_at_once_(calls_at_once) {}

  // Returns the contestant's number.
  std::size_t add(std::function<void()> call);

  // A warm-up round, which also finds out how often to repeat, then `rounds` rounds in which each contestant is timed
  // once, in the order in which they were added.
  void run(int rounds);

  // Milliseconds of one call in every round.
  const std::vector<double>& milliseconds(std::size_t contestant) const { return contestants_[contestant].samples; }
  // The median, over the rounds, of what `contestant` takes as a share of what `other` takes in the same round.
  double ratio(std::size_t contestant, std::size_t other) const;

 private:
  struct Contestant {
    std::function<void()> call;
    unsigned calls = 1;
    std::vector<double> samples;
  };
  static double time(const Contestant& contestant);
  void warm_up(Contestant& contestant) const;

  double sample_milliseconds_;
  unsigned calls_at_once_;
  std::vector<Contestant> contestants_;
};

}  // namespace kvarn::bench
