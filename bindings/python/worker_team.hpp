// Threads that a codec or a cache of the Python module lends to the library. Knows nothing of Python.
#pragma once

#include <kvarn/kvarn.h>

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace kvarn::python {

// `workers` workers, the calling thread among them; the others start with the first piece of work and sleep in between.
// One caller at a time.
class WorkerTeam {
 public:
  // workers: 1 to 1024; throws std::invalid_argument beyond.
  explicit WorkerTeam(std::uint32_t workers);
  ~WorkerTeam();
  WorkerTeam(const WorkerTeam&) = delete;
  WorkerTeam& operator=(const WorkerTeam&) = delete;

  std::uint32_t workers() const { return workers_; }
  // For calls of the library; valid as long as the team.
  const kvarn_runner* runner() const { return &runner_; }
  // Starts threads that are not running yet. Throws std::system_error if the system has none.
  void start();

 private:
  void run(std::size_t items, kvarn_task task, void* arg);
  void take_items(std::uint32_t worker);
  void serve(std::uint32_t worker);

  std::uint32_t workers_;
  kvarn_runner runner_;
  std::vector<std::thread> threads_;

  std::mutex mutex_;
  std::condition_variable begin_;
  std::condition_variable end_;
  std::uint64_t round_ = 0;    // of work; guarded by mutex_, like the rest but next_
  std::uint32_t at_work_ = 0;  // threads that have not finished the round
  bool over_ = false;
  std::size_t items_ = 0;
  kvarn_task task_ = nullptr;
  void* arg_ = nullptr;
  std::atomic<std::size_t> next_ = 0;
};

}  // namespace kvarn::python
