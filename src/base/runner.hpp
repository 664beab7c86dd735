// How the library runs work on several threads that the caller owns: it asks, the caller's runner calls back.
#pragma once

#include <cstddef>
#include <type_traits>

namespace kvarn {

// A caller's thread team. `run` calls task(arg, item, worker) once for every item in [0, items), in any order and on
// any thread, with worker < workers and no two calls at once for the same worker, and returns when all are done.
struct Runner {
  unsigned workers = 1;
  void* context = nullptr;
  void (*run)(void* context, std::size_t items, void (*task)(void* arg, std::size_t item, unsigned worker),
              void* arg) = nullptr;  // nullptr: the calling thread does everything as worker 0
};

// Runs body(item, worker) over [0, items) on the runner's team.
template <class Body>
void parallel_for(const Runner& runner, std::size_t items, Body&& body) {
  if (runner.run == nullptr || runner.workers <= 1 || items <= 1) {
    for (std::size_t item = 0; item < items; ++item) body(item, 0u);
    return;
  }
  using Plain = std::remove_reference_t<Body>;
  runner.run(
      runner.context, items,
      [](void* arg, std::size_t item, unsigned worker) { (*static_cast<Plain*>(arg))(item, worker); }, &body);
}

}  // namespace kvarn
