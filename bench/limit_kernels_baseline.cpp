// Limits of what every machine has; integer dot products are left out, there is nothing fast to compare with.
#include "limit_kernels.hpp"
#include "sum_words-inl.hpp"

namespace kvarn::bench {

const LimitKernels kBaselineLimits{"baseline", sum_words, nullptr, 0};

}  // namespace kvarn::bench
