// What stands behind a kvarn.Cache: steps and sessions use it too.
#pragma once

#include <kvarn/kvarn.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "python_parts.hpp"
#include "worker_team.hpp"

namespace kvarn::python {

struct Destroy {
  void operator()(kvarn_cache* cache) const { kvarn_cache_destroy(cache); }
};

// A cache, its threads, and what calls must know of it. Steps hold on to it, so that it outlives them.
struct CacheState {
  CacheState(std::vector<kvarn_layer> of, std::uint32_t threads) : layers(std::move(of)), team(threads) {}

  template <class Call>
  void call(Call&& body) {
    call_alone(mutex, std::forward<Call>(body));
  }
  const kvarn_layer& layer(std::uint32_t index) const {
    if (index >= layers.size()) throw pybind11::index_error("there is no layer " + std::to_string(index));
    return layers[index];
  }

  std::vector<kvarn_layer> layers;
  std::mutex mutex;
  WorkerTeam team;
  std::unique_ptr<kvarn_cache, Destroy> cache;
};

// Of a kvarn.Cache; throws pybind11::cast_error for anything else.
std::shared_ptr<CacheState> state_of(const pybind11::object& cache);

}  // namespace kvarn::python
