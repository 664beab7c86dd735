#include "measurement_runner.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace kvarn::bench {
namespace {

// The caches that one measurement still has to do.
struct Task {
  Measurement* measurement;
  std::vector<CacheChoice> choices;

  std::size_t groups(std::size_t side_by_side) const { return (choices.size() + side_by_side - 1) / side_by_side; }
  double work(std::size_t side_by_side) const {
    return measurement->work() * static_cast<double>(choices.size() + groups(side_by_side));
  }
};

std::string names_of(std::span<const CacheChoice> choices) {
  return choices.size() == 1 ? choices[0].name()
                             : fmt::format("{} to {}", choices.front().name(), choices.back().name());
}

}  // namespace

RunCounts run_missing(std::span<Measurement* const> measurements, std::span<const CacheChoice> choices,
                      std::size_t side_by_side, const std::string& label, const StateStore& store) {
  RunCounts counts;
  std::vector<Task> tasks;
  double work = 0.0;
  for (Measurement* measurement : measurements) {
    Task task = {measurement, {}};
    for (const CacheChoice& choice : choices) {
      if (!store.load(measurement->key(), choice.key())) task.choices.push_back(choice);
    }
    counts.measured += task.choices.size();
    counts.stored += choices.size() - task.choices.size();
    work += task.work(side_by_side);
    tasks.push_back(std::move(task));
  }
  if (counts.measured == 0) return counts;
  Progress progress(work);
  for (const Task& task : tasks) {
    for (std::size_t first = 0; first < task.choices.size(); first += side_by_side) {
      const std::size_t count = std::min(side_by_side, task.choices.size() - first);
      const std::span<const CacheChoice> group(&task.choices[first], count);
      progress.begin(fmt::format("{}{}, {}", label, task.measurement->title(), names_of(group)));
      const std::vector<Json> results = task.measurement->run(group, progress);
      for (std::size_t index = 0; index < count; ++index) {
        store.save(task.measurement->key(), group[index].key(), results[index]);
      }
    }
  }
  return counts;
}

}  // namespace kvarn::bench
