#include "schedule.hpp"

#include <algorithm>
#include <utility>

namespace schedule {

llama_pos Schedule::first(const ScheduleContext & host, llama_seq_id sequence) const {
    return settings_.windowed ? 0 : host.first_position(sequence);
}

llama_pos Schedule::length(const ScheduleContext & host, llama_seq_id sequence) const {
    const llama_pos last = host.last_position(sequence);
    return last < 0 ? 0 : last - first(host, sequence) + 1;
}

// Adds `count` tokens behind the sequence, in one go; they go last in the batch.
void Schedule::append(const ScheduleContext & host, Operation & operation, llama_seq_id sequence, uint32_t count) {
    llama_pos position = host.last_position(sequence) + 1;
    for (const Token & token : operation.tokens) {
        position += std::find(token.sequences.begin(), token.sequences.end(), sequence) != token.sequences.end() ? 1 : 0;
    }
    for (uint32_t at = 0; at < count; ++at) {
        operation.tokens.push_back({static_cast<llama_token>(below(static_cast<uint32_t>(settings_.vocabulary))), position++, {sequence}});
    }
}

Operation Schedule::decode_one(const ScheduleContext & host, llama_seq_id sequence) {
    Operation operation;
    append(host, operation, sequence, below(4) == 0 ? 1 + below(60) : 1 + below(4));
    return operation;
}

Operation Schedule::decode_all(const ScheduleContext & host) {
    Operation operation;
    for (llama_seq_id sequence = 0; sequence < SEQUENCES; ++sequence) {
        if (length(host, sequence) > 0) {
            append(host, operation, sequence, 1);
        }
    }
    return operation.tokens.empty() ? decode_one(host, any_sequence()) : operation;
}

// Several sequences in one batch, their tokens in turns or one after the other.
Operation Schedule::decode_mixed(const ScheduleContext & host) {
    Operation operation;
    const llama_seq_id first = any_sequence();
    const uint32_t sequences = 2 + below(3);
    const uint32_t count = 1 + below(20);
    const bool in_turns = below(2) == 0;
    for (uint32_t round = 0; round < (in_turns ? count : 1); ++round) {
        for (uint32_t at = 0; at < sequences; ++at) {
            append(host, operation, static_cast<llama_seq_id>((static_cast<uint32_t>(first) + at) % SEQUENCES), in_turns ? 1 : count);
        }
    }
    return operation;
}

// Tokens that belong to a sequence and to the copy that was just made of it. Of sequences with pasts of their own no engine shares
// any: such a token would see both.
Operation Schedule::decode_shared(const ScheduleContext & host) {
    Operation operation;
    append(host, operation, pending_copy_.sequence, 1 + below(12));
    for (Token & token : operation.tokens) {
        token.sequences.push_back(pending_copy_.other);
    }
    pending_ = below(3) == 0 ? Pending::SHARE : Pending::NOTHING;
    return operation;
}

Operation Schedule::decode(const ScheduleContext & host) {
    const llama_seq_id sequence = any_sequence();
    if (length(host, sequence) > static_cast<llama_pos>(settings_.longest)) {
        return remove_whole(sequence);
    }
    switch (below(8)) {
        case 0:
        case 1:
            return decode_all(host);
        case 2:
        case 3:
            return decode_mixed(host);
        default:
            return decode_one(host, sequence);
    }
}

Operation Schedule::remove_whole(llama_seq_id sequence) {
    Operation operation;
    operation.kind = Kind::REMOVE;
    operation.sequence = sequence;
    return operation;
}

Operation Schedule::remove(const ScheduleContext & host) {
    Operation operation = remove_whole(any_sequence());
    const llama_pos start = first(host, operation.sequence);
    const auto size = static_cast<uint32_t>(length(host, operation.sequence));
    if (size < 2) {
        return operation;
    }
    switch (below(8)) {
        case 0:
            break;
        case 1: {  // from the middle
            operation.first = start + static_cast<llama_pos>(below(size));
            operation.last = operation.first + static_cast<llama_pos>(1 + below(20));
            break;
        }
        case 2:  // from the start
            operation.first = 0;
            operation.last = start + static_cast<llama_pos>(below(size / 2 + 1));
            break;
        case 3:  // of any sequence, a few positions
            operation.sequence = below(4) == 0 ? -1 : operation.sequence;
            operation.first = start + static_cast<llama_pos>(below(size));
            operation.last = operation.first + static_cast<llama_pos>(1 + below(4));
            break;
        case 4:
            operation.first = start + static_cast<llama_pos>(below(size));
            break;
        default:  // what speculation does
            operation.first = std::max<llama_pos>(start, host.last_position(operation.sequence) - static_cast<llama_pos>(below(5)));
    }
    // Of a sequence that has nothing left in its window the host would take the next token for the first, and still has the others.
    // A window that keeps all tokens has the last ones only, too, of a sequence that was restored.
    const bool empties_window = operation.sequence >= 0 && operation.first <= host.first_position(operation.sequence) &&
                                (operation.last < 0 || operation.last > host.last_position(operation.sequence));
    return empties_window ? remove_whole(operation.sequence) : operation;
}

Operation Schedule::copy(const ScheduleContext & host) {
    Operation operation;
    operation.kind = Kind::COPY;
    operation.sequence = any_sequence();
    operation.other = any_sequence();
    if (operation.other == operation.sequence) {
        operation.other = (operation.other + 1) % SEQUENCES;
    }
    const auto size = static_cast<uint32_t>(length(host, operation.sequence));
    if (!settings_.unified) {
        pending_ = Pending::DECODE;  // the host moves the bytes at the next decode: what is saved before that is nobody's
        return operation;
    }
    // The beginning of a sequence has left its window: a copy of it would begin anew there, and not in the other layers.
    if (!settings_.windowed && size > 1 && below(3) == 0) {
        operation.last = first(host, operation.sequence) + static_cast<llama_pos>(1 + below(size));
    }
    pending_copy_ = operation;
    pending_ = Pending::COPY;
    return remove_whole(operation.other);
}

// What context shift and self-extend do.
Operation Schedule::shift(const ScheduleContext & host) {
    Operation operation;
    operation.sequence = any_sequence();
    const auto size = static_cast<uint32_t>(length(host, operation.sequence));
    if (!host.can_shift() || size < 4) {
        return decode_one(host, operation.sequence);
    }
    const llama_pos start = first(host, operation.sequence);
    if (below(8) == 0) {
        operation.kind = Kind::DIVIDE;
        operation.first = start;
        operation.last = below(2) == 0 ? -1 : start + static_cast<llama_pos>(1 + below(size));
        operation.amount = 2;
        return operation;
    }
    operation.kind = Kind::ADD;
    operation.first = start + static_cast<llama_pos>(below(size));
    operation.amount = below(3) == 0 ? static_cast<int32_t>(1 + below(20)) : -static_cast<int32_t>(1 + below(20));
    operation.amount = std::max(operation.amount, -operation.first);
    if (below(4) == 0) {
        operation.last = operation.first + static_cast<llama_pos>(1 + below(size));
    }
    return operation;
}

Operation Schedule::state(const ScheduleContext & host) {
    if (below(4) == 0) {
        return special_state(host);
    }
    Operation operation;
    operation.sequence = any_sequence();
    operation.slot = below(SLOTS);
    operation.kind = saved_[operation.slot] && below(2) == 0 ? Kind::RESTORE : Kind::SAVE;
    if (operation.kind == Kind::SAVE && length(host, operation.sequence) == 0) {
        return decode_one(host, operation.sequence);
    }
    saved_[operation.slot] = true;
    return operation;
}

Operation Schedule::special_state(const ScheduleContext & host) {
    Operation operation;
    operation.sequence = any_sequence();
    switch (below(4)) {
        case 0:
        case 1: {
            const uint32_t which = below(2);
            operation.slot = WHOLE_SLOTS + which;
            operation.kind = whole_saved_[which] && below(3) == 0 ? Kind::RESTORE_WHOLE : Kind::SAVE_WHOLE;
            whole_saved_[which] = true;
            return operation;
        }
        case 2:
            operation.slot = PARTIAL_SLOT;
            operation.flags = LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY;
            // The other layers must have what the window goes back to, as a server's checkpoints see to.
            if (partial_sequence_ >= 0 && host.last_position(partial_sequence_) < partial_last_) {
                partial_sequence_ = -1;
            }
            if (partial_sequence_ >= 0 && below(2) == 0) {
                operation.sequence = partial_sequence_;
                operation.kind = Kind::RESTORE;
                pending_ = Pending::CUT_AFTER_PARTIAL;
                return operation;
            }
            partial_sequence_ = operation.sequence;
            partial_last_ = host.last_position(operation.sequence);
            break;
        default:
            operation.slot = DEVICE_SLOT;
            operation.flags = LLAMA_STATE_SEQ_FLAGS_ON_DEVICE;
            pending_ = Pending::RESTORE_DEVICE;
            pending_sequence_ = operation.sequence;
    }
    operation.kind = Kind::SAVE;
    if (length(host, operation.sequence) == 0) {
        pending_ = Pending::NOTHING;
        partial_sequence_ = -1;
        return decode_one(host, operation.sequence);
    }
    return operation;
}

// What must follow the operation before.
bool Schedule::pending(Operation & operation, const ScheduleContext & host) {
    const Pending due = std::exchange(pending_, Pending::NOTHING);
    switch (due) {
        case Pending::NOTHING:
            return false;
        case Pending::DECODE:
            operation = decode_one(host, any_sequence());
            return true;
        case Pending::COPY: {
            // A window may have lost a token for one of the two.
            const bool is_whole = pending_copy_.last < 0 && length(host, pending_copy_.sequence) > 0;
            pending_ = is_whole && !settings_.windowed && below(2) == 0 ? Pending::SHARE : Pending::NOTHING;
            operation = pending_copy_;
            return true;
        }
        case Pending::SHARE:
            operation = decode_shared(host);
            return true;
        case Pending::RESTORE_DEVICE:
            // Its own cells are free then, so that it fits: a restore from the device that does not fit ends the process.
            operation.kind = Kind::RESTORE;
            operation.slot = DEVICE_SLOT;
            operation.flags = LLAMA_STATE_SEQ_FLAGS_ON_DEVICE;
            operation.sequence = pending_sequence_;
            return true;
        case Pending::CUT_AFTER_PARTIAL:
            operation = remove_whole(partial_sequence_);
            operation.first = partial_last_ + 1;
            return true;
        case Pending::MAKE_ROOM:
            operation = remove_whole(pending_sequence_);
            return true;
    }
    return false;
}

void Schedule::failed() {
    pending_ = Pending::MAKE_ROOM;
    pending_sequence_ = any_sequence();
}

Operation Schedule::next(const ScheduleContext & host) {
    Operation operation;
    if (pending(operation, host)) {
        return operation;
    }
    const uint32_t dice = below(400);
    if (dice < 1) {
        operation.kind = Kind::CLEAR;
        operation.amount = static_cast<int32_t>(below(2));
        return operation;
    }
    if (dice < 2) {
        operation.kind = Kind::KEEP;
        operation.sequence = any_sequence();
        return operation;
    }
    if (dice < 50) {
        return remove(host);
    }
    if (dice < 75) {
        return settings_.copies ? copy(host) : decode(host);
    }
    if (dice < 95) {
        return settings_.shifts ? shift(host) : decode(host);
    }
    if (dice < 145) {
        return settings_.states ? state(host) : decode(host);
    }
    return decode(host);
}

}  // namespace schedule
