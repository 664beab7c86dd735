// A cap on memory that several owners share, on any threads. Lowest folder: knows numbers only.
#pragma once

#include <atomic>
#include <cstdint>

namespace kvarn {

class MemoryLimit {
 public:
  static constexpr std::uint64_t kNone = ~std::uint64_t{0};

  // What was taken before stays taken, even beyond the new limit.
  void set(std::uint64_t bytes) { limit_ = bytes; }
  std::uint64_t bytes() const { return limit_; }
  std::uint64_t taken() const { return taken_; }

  // Takes bytes if they fit below the limit with all that others have taken; otherwise nothing changes.
  bool take(std::uint64_t bytes) {
    std::uint64_t before = taken_.load();
    do {
      const std::uint64_t limit = limit_;
      if (bytes > limit || before > limit - bytes) return false;
    } while (!taken_.compare_exchange_weak(before, before + bytes));
    return true;
  }
  // Takes bytes whatever the limit: for what makes room in the end.
  void take_beyond(std::uint64_t bytes) { taken_ += bytes; }
  void give_back(std::uint64_t bytes) { taken_ -= bytes; }

 private:
  std::atomic<std::uint64_t> limit_{kNone};
  std::atomic<std::uint64_t> taken_{0};
};

}  // namespace kvarn
