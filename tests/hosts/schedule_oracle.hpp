// What must be true of a compressed cache after every step, told by the host's own cache on the plain CPU that went through the same
// schedule, and by a reference attention in double precision. Both contexts choose the same cells, so the host's cache says what
// every cell of the compressed one stands for. At every watched attention node:
//
//   mask       both are the same
//   rows       a row that a query sees is the host's row: bit for bit, or, once it is sealed, within a bound of what the preset's
//              width costs. The row of another token is at a squared distance of about 2 of a row's own square, a lost row at 1, and
//              no bound is above 0.9, but that of K rows that were shifted: every shift seals their tile again, and their errors add
//              up (at 2 bits to 0.95 after three shifts); a restored row brings its own with it. So K rows must also point where the
//              host's do, at a cosine of 0.4 or more: a lost row has 0, another row 0.26 in the root mean square, one in eighteen
//              above 0.4, and in 4 million right rows of 2 bits none was below 0.52. Judged where K and V do not depend on
//              attention: in all layers of a random model (random_model.hpp), in the first layer of another model
//   tail       the newest rows of every query are exact: those written since the last operation that is not a decode, and not behind
//              the tail of another query of an earlier micro-batch (sequences may share them)
//   constancy  a sealed row does not change until an operation touches its cell (rows of a restored state may be encoded once more,
//              where their record could not travel)
//   attention  the output is that of the reference over the rows of the compressed cache itself, within a bound of what its kernels
//              round
//
// and, with exact tiles of a random model, all logits are the host's within the float error of its attention in half precision. Rows and
// attention together say that the output is the reference decode of the same schedule, for every preset; nothing in a compressed cache is
// compared with itself.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "schedule_context.hpp"
#include "schedule_operation.hpp"
#include "schedule_shifts.hpp"

namespace schedule {

struct OracleSettings {
    bool exact = false;  // the preset is f16
    bool judges_rows = true;
    bool judges_attention = true;
    bool judges_logits = true;
    uint32_t tail_tokens = 16;
    int known_layers = 1 << 30;       // the rows of layers below depend on nothing but tokens and positions
    bool restored_are_final = false;  // rows of a restored state are sealed as they were saved: none is encoded again
    double k_bound = 0.0;             // squared distance of a row that was sealed once, of the row's own square
    double v_bound = 0.0;
    double attention_bound = 0.0;  // largest error of an output value, of the root mean square of the values that are seen
    double logit_bound = 0.0;      // largest difference of a logit, of the root mean square of the logits
};

// What was seen: counts, and the largest of what has a bound.
struct OracleFigures {
    uint64_t nodes = 0;
    uint64_t rows = 0;
    uint64_t sealed_rows = 0;
    uint64_t encoded_again = 0;
    uint64_t outputs = 0;
    double k_error = 0.0;  // of rows sealed once
    double v_error = 0.0;
    double k_cosine = 1.0;  // smallest of all sealed rows
    double attention_error = 0.0;
    double host_attention_error = 0.0;  // of the host's own attention, over its own rows
    double logit_error = 0.0;
};

class Oracle {
  public:
    explicit Oracle(const OracleSettings & settings) : settings_(settings) {}

    // An operation was made on both contexts, the host's among them.
    void note(const Operation & operation, const ScheduleContext & host);
    // A decode was made that nobody watched.
    void forget() { cells_.clear(); }
    // Judges a decode that was watched in both: what is wrong, in one line, or nothing.
    std::string judge_nodes(const std::vector<AttentionNode> & host, const std::vector<AttentionNode> & ours);
    std::string judge_logits(const std::vector<float> & host, const std::vector<float> & ours);

    const OracleFigures & figures() const { return figures_; }

  private:
    // What is known of a cell of a layer.
    struct Cell {
        uint64_t written = 0;   // when a decode wrote it, 0 if something else may have since
        uint32_t shifts = 0;    // since its row was a decode's, at most; each seals its tile again
        bool decoded = false;   // its row is a decode's, not a restored one
        bool outgrown = false;  // some query of an earlier micro-batch had it behind its tail
        bool sealed = false;    // the hashes are those of its sealed row
        uint64_t host_hash = 0;
        uint64_t our_hash = 0;
    };

    Cell & cell_at(const AttentionNode & node, uint64_t stream, uint64_t cell);
    void note_writes(const AttentionNode & node);
    std::string judge_node(const AttentionNode & host, const AttentionNode & ours);
    std::string judge_rows(const AttentionNode & host, const AttentionNode & ours);
    std::string judge_row(const AttentionNode & host, const AttentionNode & ours, uint32_t slice, uint32_t cell);
    std::string judge_constancy(const AttentionNode & host, const AttentionNode & ours, uint32_t slice, uint32_t cell);
    std::string judge_tail(const AttentionNode & host, const AttentionNode & ours);
    std::string judge_tail_of(const AttentionNode & host, const AttentionNode & ours, uint32_t slice, uint32_t query);
    std::string judge_attention(const AttentionNode & host, const AttentionNode & ours);

    OracleSettings settings_;
    OracleFigures figures_;
    ShiftCounts shifts_;
    std::unordered_map<uint64_t, Cell> cells_;  // by layer, stream and cell
    std::vector<Cell *> behind_;                // cells that the node at hand shows behind a tail
    uint64_t clock_ = 1;
};

}  // namespace schedule
