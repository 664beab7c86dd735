// What is being measured and how long it will take, on stderr. Work is counted in tokens that a cache has to decode.
#pragma once

#include <chrono>
#include <string>

namespace kvarn::bench {

class Progress {
 public:
  using Clock = std::chrono::steady_clock;

  // total_work: of everything that is still to be done.
  explicit Progress(double total_work);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Names the part that follows.
  void begin(std::string part);
  void advance(double work);
  // Work that turned out not to be needed: it takes no time.
  void skip(double work);

 private:
  void show();

  double total_work_;
  double done_work_ = 0.0;
  std::string part_;
  Clock::time_point start_;
  Clock::time_point last_shown_;
  bool on_terminal_;  // one line that is written over; elsewhere a line now and then
  bool line_is_open_ = false;
};

// "40 s", "12 min", "3 h 20 min".
std::string duration_text(double seconds);

}  // namespace kvarn::bench
