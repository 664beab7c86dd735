// How much memory this process may still take: of the machine, or of the control group it runs in.
#pragma once

#include <cstdint>

namespace ggml_kvarn {

struct MachineMemory {
    uint64_t available_bytes = 0;
    uint64_t total_bytes = 0;
};

MachineMemory machine_memory();

}  // namespace ggml_kvarn
