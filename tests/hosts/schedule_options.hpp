// The command line of host_schedule, and the bounds that a preset sets.
#pragma once

#include <cstdint>
#include <string>

#include "schedule.hpp"
#include "schedule_context.hpp"
#include "schedule_oracle.hpp"

namespace schedule {

struct Options {
    std::string model = "dense";  // dense, window, or a file
    std::string fault;            // what to make wrong on the plugin's side
    std::string only;             // rows, attention or logits: the one check to make
    uint64_t seed = 1;
    uint64_t steps = 1000;
    uint64_t stop_at = UINT64_MAX;
    uint64_t watch_every = 1;
    uint64_t ubatch = 37;
    uint64_t context = 0;  // 0: enough for eight sequences of the longest length
    uint64_t longest = 0;
    uint64_t threads = 1;
    std::string layout = "unified";
    bool full_window = false;
    bool verbose = false;
    bool no_copies = false;
    bool no_shifts = false;
    bool no_states = false;
    bool final_states = false;

    bool is_random() const { return model == "dense" || model == "window"; }
};

// False for an option that is not known or has no value.
bool parse(int argc, char ** argv, Options & options);

ContextSettings context_settings(const Options & options);
ScheduleSettings schedule_settings(const Options & options);
// By the preset and the tail that the environment gives to the plugin.
OracleSettings oracle_settings(const Options & options);

// Starts a process that makes the same steps.
std::string replay_arguments(const Options & options, uint64_t steps);

}  // namespace schedule
