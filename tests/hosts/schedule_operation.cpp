#include "schedule_operation.hpp"

#include <cstdio>

namespace schedule {
namespace {

std::string describe_tokens(const std::vector<Token> & tokens) {
    std::string text = "decode";
    for (const Token & token : tokens) {
        char separator = ' ';
        for (const llama_seq_id sequence : token.sequences) {
            text += separator;
            text += std::to_string(sequence);
            separator = '+';
        }
        text += '@';
        text += std::to_string(token.position);
        text += ':';
        text += std::to_string(token.id);
    }
    return text;
}

const char * call_of(Kind kind) {
    switch (kind) {
        case Kind::DECODE:
            return "decode";
        case Kind::REMOVE:
            return "seq_rm";
        case Kind::COPY:
            return "seq_cp";
        case Kind::KEEP:
            return "seq_keep";
        case Kind::ADD:
            return "seq_add";
        case Kind::DIVIDE:
            return "seq_div";
        case Kind::CLEAR:
            return "clear";
        case Kind::SAVE:
            return "state_seq_get";
        case Kind::RESTORE:
            return "state_seq_set";
        case Kind::SAVE_WHOLE:
            return "state_get";
        case Kind::RESTORE_WHOLE:
            return "state_set";
    }
    return "?";
}

}  // namespace

std::string describe(const Operation & operation) {
    if (operation.kind == Kind::DECODE) {
        return describe_tokens(operation.tokens);
    }
    char line[160];
    std::snprintf(line, sizeof(line), "%s sequence %d, other %d, [%d, %d), amount %d, slot %u, flags %u", call_of(operation.kind),
                  operation.sequence, operation.other, operation.first, operation.last, operation.amount, operation.slot, operation.flags);
    return line;
}

}  // namespace schedule
