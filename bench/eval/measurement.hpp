// One piece of an evaluation: a task that every cache is put to, against the same reference. Pieces are stored one by
// one, so each must be short enough to be done again.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "cache_choice.hpp"
#include "progress.hpp"
#include "results_file.hpp"

namespace kvarn::bench {

// A token decoded alone, in tokens of a prompt.
inline constexpr double kSingleTokenWork = 3.0;

class Measurement {
 public:
  virtual ~Measurement() = default;

  // The same key promises the same result (with the same model, text, plugin and machine). Usable as a file name.
  virtual std::string key() const = 0;
  // For people: "chunk 2 of 4".
  virtual std::string title() const = 0;
  // Tokens that a cache has to decode; the reference has to decode as many once more for every run.
  virtual double work() const = 0;
  // One result a choice, in their order; all of them live side by side. Advances the progress by (choices + 1) *
  // work().
  virtual std::vector<Json> run(std::span<const CacheChoice> choices, Progress& progress) = 0;
};

}  // namespace kvarn::bench
