// The kernels compiled for one instruction set; exports its table and nothing else.
#include "kernels/isa_tables.hpp"
#include "kernels/table-inl.hpp"

namespace kvarn {

constinit const KernelTable kNeonDotprodKernels = make_table("neon_dotprod");

}  // namespace kvarn
