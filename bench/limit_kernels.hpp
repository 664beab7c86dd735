// What the machine can do at best, one table per instruction set: read memory, and multiply bytes in registers.
// Knows nothing of attention; a new instruction set is one translation unit that exports one table.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace kvarn::bench {

struct LimitKernels {
  const char* name;  // of the instructions that multiply

  // The sum of `count` words (a multiple of 64), read once from front to back.
  std::uint64_t (*sum_words)(const std::uint64_t* words, std::size_t count);

  // Integer dot products on registers alone, with enough independent sums to hide the latency: unsigned bytes times
  // signed bytes, added in 32 bits. Returns something that depends on all of them. nullptr: no such instructions.
  std::int32_t (*multiply)(std::size_t steps);
  std::size_t multiplications_per_step;
};

extern const LimitKernels kBaselineLimits;
#if defined(__x86_64__)
extern const LimitKernels kAvx2Limits;
extern const LimitKernels kAvx512Limits;
#endif

// The best table that this machine runs and that asks for no more than the kernel table of this name does.
const LimitKernels& limit_kernels(std::string_view kernel_table);

}  // namespace kvarn::bench
