#include "progress.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>

namespace kvarn::bench {
namespace {

constexpr double kSecondsOnTerminal = 0.5;
constexpr double kSecondsElsewhere = 30.0;
constexpr double kSecondsBeforeGuess = 3.0;

double seconds_between(Progress::Clock::time_point start, Progress::Clock::time_point end) {
  return std::chrono::duration<double>(end - start).count();
}

}  // namespace

std::string duration_text(double seconds) {
  if (seconds < 90.0) return fmt::format("{:.0f} s", std::max(0.0, seconds));
  const auto minutes = static_cast<long>(std::ceil(seconds / 60.0));
  return minutes < 100 ? fmt::format("{} min", minutes) : fmt::format("{} h {} min", minutes / 60, minutes % 60);
}

Progress::Progress(double total_work)
    : total_work_(total_work), start_(Clock::now()), on_terminal_(isatty(STDERR_FILENO) != 0) {}

Progress::~Progress() {
  if (line_is_open_) fmt::print(stderr, "\r\033[K");
}

void Progress::begin(std::string part) {
  part_ = std::move(part);
  show();
}

void Progress::advance(double work) {
  done_work_ += work;
  const double pause = on_terminal_ ? kSecondsOnTerminal : kSecondsElsewhere;
  if (seconds_between(last_shown_, Clock::now()) >= pause) show();
}

void Progress::skip(double work) { total_work_ -= work; }

void Progress::show() {
  last_shown_ = Clock::now();
  const double elapsed = seconds_between(start_, last_shown_);
  const double share = total_work_ > 0.0 ? std::clamp(done_work_ / total_work_, 0.0, 1.0) : 1.0;
  std::string line = fmt::format("{:3.0f} %  {}", 100.0 * share, part_);
  if (elapsed > kSecondsBeforeGuess && share > 0.0) {
    line += fmt::format(", about {} left", duration_text(elapsed * (1.0 - share) / share));
  }
  if (on_terminal_) {
    fmt::print(stderr, "\r\033[K{}", line);
    std::fflush(stderr);
    line_is_open_ = true;
  } else {
    fmt::print(stderr, "{}\n", line);
  }
}

}  // namespace kvarn::bench
