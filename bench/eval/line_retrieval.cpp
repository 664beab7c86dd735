#include "line_retrieval.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <random>
#include <utility>
#include <vector>

namespace kvarn::bench {
namespace {

constexpr const char* kIntroduction = "The store room has a number for what lies in every drawer.\n";

std::string question_of(std::size_t line) { return fmt::format("Drawer {} holds part number", line + 1); }

std::string document_of(const std::vector<std::string>& numbers, std::size_t lines) {
  std::string text = kIntroduction;
  for (std::size_t line = 0; line < lines; ++line) text += fmt::format("{} {}\n", question_of(line), numbers[line]);
  return text;
}

// The largest number of lines whose document fits; tokens grow with lines.
std::size_t fitting_lines(const RetrievalSettings& settings, const std::vector<std::string>& numbers,
                          const std::function<std::size_t(const std::string&)>& count_tokens) {
  std::size_t fits = settings.questions;
  std::size_t too_many = numbers.size() + 1;
  while (fits + 1 < too_many) {
    const std::size_t middle = fits + (too_many - fits) / 2;
    (count_tokens(document_of(numbers, middle)) <= settings.max_tokens ? fits : too_many) = middle;
  }
  return fits;
}

}  // namespace

QuestionSettings line_retrieval(const RetrievalSettings& settings,
                                const std::function<std::size_t(const std::string&)>& count_tokens) {
  std::mt19937_64 random(settings.seed);
  const std::size_t most_lines = std::max(settings.questions, settings.max_tokens / 4);
  std::vector<std::string> numbers;
  for (std::size_t line = 0; line < most_lines; ++line) numbers.push_back(fmt::format("{}", 10000 + random() % 90000));
  const std::size_t lines = fitting_lines(settings, numbers, count_tokens);
  QuestionSettings result = {.name = "retrieval", .document = document_of(numbers, lines), .questions = {}};
  for (std::size_t index = 0; index < settings.questions; ++index) {
    const std::size_t line = (2 * index + 1) * lines / (2 * settings.questions);
    result.questions.push_back({question_of(line), numbers[line]});
  }
  return result;
}

}  // namespace kvarn::bench
