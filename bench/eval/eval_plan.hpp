// What an evaluation of one text consists of: the measurements, and how their stored results become rows.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "decoding_context.hpp"
#include "eval_command.hpp"
#include "measurement.hpp"
#include "state_store.hpp"

namespace kvarn::bench {

// A measurement may be missing (null, or no chunk).
struct EvalPlan {
  std::vector<std::unique_ptr<Measurement>> chunks;
  std::vector<std::unique_ptr<Measurement>> accumulation;
  std::unique_ptr<Measurement> greedy;
  std::unique_ptr<Measurement> free_run;
  std::unique_ptr<Measurement> retrieval;
  std::unique_ptr<Measurement> code;

  // In the order in which they are to be made: what says most first.
  std::vector<Measurement*> all() const;
};

// Throws UserError if the text is too short.
EvalPlan make_plan(const EvalHost& host, const EvalOptions& options, const std::string& text_file);

// How often a position is compared: the power of two with which logits of one micro-batch fit 128 MiB.
int default_position_step(int micro_batch_tokens, int vocabulary);

}  // namespace kvarn::bench
