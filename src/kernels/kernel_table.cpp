// Which kernels run: found out once, by asking the processor.
#include "kernels/kernel_table.hpp"

#include <array>
#include <atomic>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

#include "kernels/isa_tables.hpp"

namespace kvarn {
namespace {

struct Available {
  std::array<const KernelTable*, 4> tables{};
  std::size_t count = 0;

  void add(const KernelTable& table) { tables[count++] = &table; }
};

#if defined(__x86_64__)
// Clang 14 does not know this feature by name.
bool has_f16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
#elif defined(__aarch64__)
struct DotProducts {
  bool same_sign = false;   // sdot, udot; only processors of Armv8.2 and later have them
  bool mixed_sign = false;  // usdot
};

// The kernel's word on the processor; without it, what every 64-bit Arm has.
DotProducts find_dot_products() {
#if defined(__linux__)
  return {.same_sign = (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0,
          .mixed_sign = (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0};
#else
  return {};
#endif
}
#endif

Available find_available() {
  Available found;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    if (__builtin_cpu_supports("avx512vnni")) found.add(kAvx512VnniKernels);
    found.add(kAvx512Kernels);
  }
  if (__builtin_cpu_supports("avx2") && has_f16c()) found.add(kAvx2Kernels);
  found.add(kBaselineKernels);
#elif defined(__aarch64__)
  const DotProducts has = find_dot_products();
  if (has.same_sign && has.mixed_sign) found.add(kNeonI8mmKernels);
  if (has.same_sign) found.add(kNeonDotprodKernels);
  found.add(kNeonKernels);
#else
  found.add(kBaselineKernels);
#endif
  return found;
}

const Available& available() {
  static const Available found = find_available();
  return found;
}

std::atomic<const KernelTable*>& current() {
  static std::atomic<const KernelTable*> table{available().tables[0]};
  return table;
}

}  // namespace

std::span<const KernelTable* const> available_kernels() { return {available().tables.data(), available().count}; }

const KernelTable& kernels() { return *current().load(std::memory_order_acquire); }

bool select_kernels(std::string_view name) {
  for (const KernelTable* table : available_kernels()) {
    if (name != table->name) continue;
    current().store(table, std::memory_order_release);
    return true;
  }
  return false;
}

}  // namespace kvarn
