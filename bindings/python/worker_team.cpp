#include "worker_team.hpp"

#include <stdexcept>

namespace kvarn::python {

WorkerTeam::WorkerTeam(std::uint32_t workers) : workers_(workers), runner_(KVARN_RUNNER_INIT) {
  if (workers < 1 || workers > 1024) throw std::invalid_argument("threads must be 1 to 1024");
  if (workers == 1) return;
  runner_.context = this;
  runner_.workers = workers;
  runner_.run = [](void* context, std::size_t items, kvarn_task task, void* arg) {
    static_cast<WorkerTeam*>(context)->run(items, task, arg);
  };
}

WorkerTeam::~WorkerTeam() {
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
  }
  begin_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

// Before the library is called, not within: nothing may be thrown through it.
void WorkerTeam::start() {
  threads_.reserve(workers_ - 1);
  while (threads_.size() + 1 < workers_) {
    threads_.emplace_back(&WorkerTeam::serve, this, static_cast<std::uint32_t>(threads_.size() + 1));
  }
}

void WorkerTeam::run(std::size_t items, kvarn_task task, void* arg) {
  {
    const std::lock_guard lock(mutex_);
    items_ = items;
    task_ = task;
    arg_ = arg;
    next_ = 0;
    at_work_ = static_cast<std::uint32_t>(threads_.size());
    ++round_;
  }
  begin_.notify_all();
  take_items(0);
  std::unique_lock lock(mutex_);
  end_.wait(lock, [this] { return at_work_ == 0; });
}

void WorkerTeam::take_items(std::uint32_t worker) {
  for (std::size_t item = next_++; item < items_; item = next_++) task_(arg_, item, worker);
}

void WorkerTeam::serve(std::uint32_t worker) {
  std::uint64_t seen = 0;
  std::unique_lock lock(mutex_);
  while (true) {
    begin_.wait(lock, [&] { return over_ || round_ != seen; });
    if (over_) return;
    seen = round_;
    lock.unlock();
    take_items(worker);
    lock.lock();
    if (--at_work_ == 0) end_.notify_one();
  }
}

}  // namespace kvarn::python
