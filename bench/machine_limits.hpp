// The limits as contestants: on the same team of threads as attention, each a call that a timer can repeat.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/runner.hpp"
#include "limit_kernels.hpp"

namespace kvarn::bench {

// Reads as many bytes as somebody else does, `copies` times in different memory.
class PlainRead {
 public:
  PlainRead(const LimitKernels& kernels, std::size_t bytes, std::uint32_t copies, const Runner& runner);

  // Reads the next copy once.
  void run();

 private:
  const LimitKernels& kernels_;
  Runner runner_;
  std::size_t words_;  // of one copy
  std::uint32_t copies_;
  std::vector<std::uint64_t> memory_;
  std::atomic<std::uint64_t> total_ = 0;  // keeps the sums from being optimized away
  std::uint32_t next_ = 0;
};

// A fixed number of integer dot products on every thread.
class DotRate {
 public:
  DotRate(const LimitKernels& kernels, const Runner& runner) : kernels_(kernels), runner_(runner) {}

  bool is_known() const { return kernels_.multiply != nullptr; }
  void run();
  // Of one run, all threads together.
  double multiplications() const;

 private:
  static constexpr std::size_t kSteps = 20'000;
  const LimitKernels& kernels_;
  Runner runner_;
  std::atomic<std::int32_t> total_ = 0;
};

}  // namespace kvarn::bench
