// The kernels compiled for one instruction set; exports its table and nothing else.
#include "kernels/isa_tables.hpp"
#include "kernels/table-inl.hpp"

namespace kvarn {

constinit const KernelTable kNeonI8mmKernels = make_table("neon_i8mm");

}  // namespace kvarn
