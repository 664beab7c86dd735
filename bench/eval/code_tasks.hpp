// Code completion from a bundled file: source text that every task can look back at, then tasks, each some lines of
// code and the one line that follows.
//   text before the first mark: the document
//   "#### task": starts a task;  "#### next": the rest of the task is the line that is right
#pragma once

#include <string>

#include "questions.hpp"

namespace kvarn::bench {

// Throws UserError if the file cannot be read or a task has no right line.
QuestionSettings read_code_tasks(const std::string& file);

}  // namespace kvarn::bench
