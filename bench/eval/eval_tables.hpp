// Rows of an evaluation as Markdown tables for the terminal.
#pragma once

#include <span>
#include <string>

#include "results_file.hpp"

namespace kvarn::bench {

// Divergence: one line a row. Not empty.
std::string quality_table(std::span<const Json> rows);
// Ratios to other caches: one line a pair; empty if there is none.
std::string comparison_table(std::span<const Json> rows);
// What else was measured: one line a row, one column a measurement that took place; empty if none did.
std::string task_table(std::span<const Json> rows);

}  // namespace kvarn::bench
