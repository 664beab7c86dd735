// How often, at most, the rows of each sequence and of each saved state were shifted. A shift seals a row's tile again, and a restored
// row brings the errors of its shifts with it.
#pragma once

#include <array>
#include <cstdint>
#include <unordered_map>

#include "schedule_context.hpp"
#include "schedule_operation.hpp"

namespace schedule {

class ShiftCounts {
  public:
    // The operation was made on `host`. Returns the most that a row had that it restored, 0 if it restored none.
    uint32_t note(const Operation & operation, const ScheduleContext & host);

  private:
    using Counts = std::array<uint32_t, SEQUENCES>;

    uint32_t restore(const Operation & operation);

    Counts counts_{};
    std::unordered_map<uint32_t, Counts> saved_;  // by slot; the state of one sequence has its count for every sequence
};

}  // namespace schedule
