// One step of a schedule: a call of llama.cpp's public API, as data, so that it can be made on several contexts and printed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "llama.h"

namespace schedule {

constexpr llama_seq_id SEQUENCES = 8;

enum class Kind : uint8_t {
    DECODE,
    REMOVE,        // llama_memory_seq_rm
    COPY,          // llama_memory_seq_cp
    KEEP,          // llama_memory_seq_keep
    ADD,           // llama_memory_seq_add
    DIVIDE,        // llama_memory_seq_div
    CLEAR,         // llama_memory_clear
    SAVE,          // llama_state_seq_get_data_ext into a slot
    RESTORE,       // llama_state_seq_set_data_ext from a slot
    SAVE_WHOLE,    // llama_state_get_data
    RESTORE_WHOLE  // llama_state_set_data
};

struct Token {
    llama_token id = 0;
    llama_pos position = 0;
    std::vector<llama_seq_id> sequences;
};

struct Operation {
    Kind kind = Kind::DECODE;
    llama_seq_id sequence = 0;  // source of a copy
    llama_seq_id other = 0;     // destination of a copy
    llama_pos first = -1;
    llama_pos last = -1;
    int32_t amount = 0;  // shift, divisor, or 1: clear the data too
    uint32_t slot = 0;
    llama_state_seq_flags flags = 0;
    std::vector<Token> tokens;
};

// One line, for people.
std::string describe(const Operation & operation);

}  // namespace schedule
