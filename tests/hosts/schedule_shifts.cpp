#include "schedule_shifts.hpp"

#include <algorithm>

namespace schedule {

uint32_t ShiftCounts::restore(const Operation & operation) {
    const Counts & saved = saved_[operation.slot];
    if (operation.kind == Kind::RESTORE_WHOLE) {
        counts_ = saved;
        return *std::max_element(saved.begin(), saved.end());
    }
    const auto sequence = static_cast<size_t>(operation.sequence);
    const bool keeps_rows = (operation.flags & LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY) != 0;
    counts_[sequence] = std::max(keeps_rows ? counts_[sequence] : 0, saved[sequence]);
    return saved[sequence];
}

uint32_t ShiftCounts::note(const Operation & operation, const ScheduleContext & host) {
    uint32_t restored = 0;
    switch (operation.kind) {
        case Kind::ADD:
        case Kind::DIVIDE:  // of all sequences: they may share cells
            std::for_each(counts_.begin(), counts_.end(), [](uint32_t & count) { ++count; });
            break;
        case Kind::COPY: {
            uint32_t & copy = counts_[static_cast<size_t>(operation.other)];
            copy = std::max(copy, counts_[static_cast<size_t>(operation.sequence)]);
            break;
        }
        case Kind::SAVE:
            saved_[operation.slot].fill(counts_[static_cast<size_t>(operation.sequence)]);
            break;
        case Kind::SAVE_WHOLE:
            saved_[operation.slot] = counts_;
            break;
        case Kind::RESTORE:
        case Kind::RESTORE_WHOLE:
            restored = restore(operation);
            break;
        default:
            break;
    }
    for (llama_seq_id sequence = 0; sequence < SEQUENCES; ++sequence) {
        if (host.last_position(sequence) < 0) {
            counts_[static_cast<size_t>(sequence)] = 0;
        }
    }
    return restored;
}

}  // namespace schedule
