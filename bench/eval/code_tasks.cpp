#include "code_tasks.hpp"

#include <fstream>

#include "user_error.hpp"

namespace kvarn::bench {
namespace {

constexpr const char* kTaskMark = "#### task";
constexpr const char* kNextMark = "#### next";

[[noreturn]] void refuse(const std::string& file, const std::string& what) {
  throw program::UserError("'" + file + "' " + what, "give --code-file a file of code tasks, or leave it out");
}

}  // namespace

QuestionSettings read_code_tasks(const std::string& file) {
  std::ifstream stream(file);
  if (!stream) refuse(file, "cannot be read");
  QuestionSettings tasks = {.name = "code", .document = {}, .questions = {}, .answer_tokens = 48};
  std::string* target = &tasks.document;
  for (std::string line; std::getline(stream, line);) {
    if (line == kTaskMark) {
      tasks.questions.emplace_back();
      target = &tasks.questions.back().text;
    } else if (line == kNextMark) {
      if (tasks.questions.empty()) refuse(file, "has a next line before its first task");
      target = &tasks.questions.back().expected;
    } else {
      *target += line + "\n";
    }
  }
  if (tasks.questions.empty()) refuse(file, "has no task");
  for (Question& task : tasks.questions) {
    if (task.text.ends_with('\n')) task.text.pop_back();
    task.expected = first_line(task.expected);
    if (task.expected.empty() || task.text.empty()) refuse(file, "has a task without code or without a next line");
  }
  return tasks;
}

}  // namespace kvarn::bench
