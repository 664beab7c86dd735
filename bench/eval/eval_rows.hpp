// The rows of an evaluation: one a text and cache, from what is stored. This is what the file, the tables and the
// report show.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "cache_choice.hpp"
#include "eval_command.hpp"
#include "eval_plan.hpp"
#include "state_store.hpp"

namespace kvarn::bench {

// What all rows of a text have in common.
struct RowSubject {
  std::string model;
  std::string text;
  std::uint32_t head_dim;
  RecordSettings records;
};

// One row a choice, in their order. All measurements of the plan must be stored.
std::vector<Json> make_rows(const RowSubject& subject, const EvalOptions& options, const EvalPlan& plan,
                            std::span<const CacheChoice> choices, const StateStore& store);

}  // namespace kvarn::bench
