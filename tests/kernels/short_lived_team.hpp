// A runner for tests: threads that live for one call, so that a sanitizer sees everything they share.
#pragma once

#include <atomic>
#include <thread>
#include <vector>

#include "base/runner.hpp"

namespace kvarn {

struct ShortLivedTeam {
  unsigned workers;

  Runner runner() { return {.workers = workers, .context = this, .run = run}; }

  static void run(void* context, std::size_t items, void (*task)(void*, std::size_t, unsigned), void* arg) {
    std::atomic<std::size_t> next{0};
    std::vector<std::thread> threads;
    for (unsigned worker = 0; worker < static_cast<ShortLivedTeam*>(context)->workers; ++worker) {
      threads.emplace_back([&, worker] {
        for (std::size_t item = next++; item < items; item = next++) task(arg, item, worker);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
};

}  // namespace kvarn
