// One problem, all contestants: the host's attention over each of its cache types, ours over each preset, and the
// limits of the machine, timed in turns and compared with one exact result.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "attention_problem.hpp"
#include "cache/cache_config.hpp"
#include "interleaved_timer.hpp"

namespace kvarn::bench {

struct Preset {
  std::string name;
  CacheConfig config;
};

struct ContestSettings {
  std::vector<Preset> presets;
  std::uint32_t tail_tokens;  // newest rows that stay exact; a micro-batch of a prompt keeps its own rows and the 128
                              // before them
  std::uint32_t layers;       // copies of the data, visited in turn
  int threads;
  int runs;
  double sample_milliseconds;
};

struct ContestRow {
  std::string preset;  // "host f16", "host q8_0", ... or one of ours
  Spread milliseconds;
  // Times as fast: the other's milliseconds over this one's, median over the rounds. Empty: the host has no such cache
  // for this head dimension.
  std::optional<double> ratio_to_f16, ratio_to_q8_0, ratio_to_q5_0, ratio_to_q4_0;
  std::size_t bytes = 0;                   // K and V as they lie in memory
  double bandwidth_fraction = 0;           // of what a plain read of as many bytes reaches
  double read_milliseconds = 0;            // the plain read
  std::optional<double> dot_milliseconds;  // all multiplications at the bare rate of integer dot products; sealed only
  double normalized_error = 0;             // squared, against the host's attention in single precision

  double limit_milliseconds() const { return std::max(read_milliseconds, dot_milliseconds.value_or(0.0)); }
  double limit_fraction() const { return limit_milliseconds() / milliseconds.median; }
};

// The engine must be loaded. Throws UserError without memory, std::runtime_error if a result is wrong.
std::vector<ContestRow> run_contest(const ProblemSize& size, const ContestSettings& settings);

}  // namespace kvarn::bench
