#include "limit_kernels.hpp"

namespace kvarn::bench {

const LimitKernels& limit_kernels([[maybe_unused]] std::string_view kernel_table) {
#if defined(__x86_64__)
  if (kernel_table == "avx512vnni") return kAvx512Limits;
  if (kernel_table == "avx512" || kernel_table == "avx2") return kAvx2Limits;
#endif
  return kBaselineLimits;
}

}  // namespace kvarn::bench
