// The tables that the kernel translation units export; which of them exist depends on the processor family.
#pragma once

#include "kernels/kernel_table.hpp"

namespace kvarn {

extern const KernelTable kBaselineKernels;
extern const KernelTable kAvx2Kernels;
extern const KernelTable kAvx512Kernels;
extern const KernelTable kAvx512VnniKernels;
extern const KernelTable kNeonKernels;
extern const KernelTable kNeonDotprodKernels;
extern const KernelTable kNeonI8mmKernels;

}  // namespace kvarn
