// Random schedules of what a server and its users do to the cache of one context: eight sequences that grow, are cut, forked,
// shifted, saved and restored. The next operation depends on the seed and on the positions of the sequences, nothing else: the same
// seed gives the same schedule.
#pragma once

#include <array>
#include <cstdint>
#include <random>

#include "schedule_context.hpp"
#include "schedule_operation.hpp"

namespace schedule {

struct ScheduleSettings {
    uint32_t seed = 1;
    bool unified = true;
    bool windowed = false;
    uint32_t longest = 160;  // tokens of a sequence, about
    int32_t vocabulary = 64;
    bool copies = true;
    bool shifts = true;
    bool states = true;
};

class Schedule {
  public:
    explicit Schedule(const ScheduleSettings & settings) : settings_(settings), random_(settings.seed) {}

    // Valid for a context in the state of `host`, on which all operations so far were made.
    Operation next(const ScheduleContext & host);

    // The decode that was handed out last found no room: next() makes some.
    void failed();

  private:
    static constexpr uint32_t SLOTS = 4;         // of single sequences
    static constexpr uint32_t PARTIAL_SLOT = 4;  // of the window of one sequence
    static constexpr uint32_t DEVICE_SLOT = 5;   // of what stays on the device
    static constexpr uint32_t WHOLE_SLOTS = 6;   // the first of two

    uint32_t below(uint32_t bound) { return static_cast<uint32_t>(random_() % bound); }
    llama_seq_id any_sequence() { return static_cast<llama_seq_id>(below(SEQUENCES)); }
    // The positions of a sequence, from the first that the base cache of a windowed model may hold.
    llama_pos first(const ScheduleContext & host, llama_seq_id sequence) const;
    llama_pos length(const ScheduleContext & host, llama_seq_id sequence) const;
    void append(const ScheduleContext & host, Operation & operation, llama_seq_id sequence, uint32_t count);
    Operation decode(const ScheduleContext & host);
    Operation decode_one(const ScheduleContext & host, llama_seq_id sequence);
    Operation decode_all(const ScheduleContext & host);
    Operation decode_mixed(const ScheduleContext & host);
    Operation decode_shared(const ScheduleContext & host);
    Operation remove(const ScheduleContext & host);
    Operation remove_whole(llama_seq_id sequence);
    Operation copy(const ScheduleContext & host);
    Operation shift(const ScheduleContext & host);
    Operation state(const ScheduleContext & host);
    Operation special_state(const ScheduleContext & host);
    bool pending(Operation & operation, const ScheduleContext & host);

    ScheduleSettings settings_;
    std::mt19937 random_;
    std::array<bool, SLOTS> saved_{};
    std::array<bool, 2> whole_saved_{};
    llama_seq_id partial_sequence_ = -1;
    llama_pos partial_last_ = -1;
    enum class Pending : uint8_t { NOTHING, DECODE, COPY, SHARE, RESTORE_DEVICE, CUT_AFTER_PARTIAL, MAKE_ROOM } pending_ = Pending::NOTHING;
    llama_seq_id pending_sequence_ = 0;
    Operation pending_copy_;
};

}  // namespace schedule
