// Makes what is missing: every measurement for every cache whose result is not stored yet. Knows neither models nor
// texts.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "cache_choice.hpp"
#include "measurement.hpp"
#include "state_store.hpp"

namespace kvarn::bench {

struct RunCounts {
  std::size_t measured = 0;  // results of one measurement for one cache
  std::size_t stored = 0;    // that were there already
};

// At most side_by_side caches live at the same time. Every result is stored as soon as its measurement ends. label:
// what stands before a measurement's title in the progress; may be empty.
RunCounts run_missing(std::span<Measurement* const> measurements, std::span<const CacheChoice> choices,
                      std::size_t side_by_side, const std::string& label, const StateStore& store);

}  // namespace kvarn::bench
