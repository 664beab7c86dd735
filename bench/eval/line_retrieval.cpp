#include "line_retrieval.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <random>
#include <utility>
#include <vector>

namespace kvarn::bench {
namespace {

constexpr const char* kIntroduction = "Every thing in the store room has a number.\n";

constexpr const char* kThings[] = {"anchor", "bridge", "candle", "door",   "engine", "feather", "garden",   "hammer",
                                   "island", "jacket", "kettle", "ladder", "mirror", "needle",  "orange",   "pencil",
                                   "quarry", "river",  "saddle", "tower",  "valley", "window",  "yard",     "zebra",
                                   "basket", "carpet", "desk",   "fence",  "goose",  "helmet",  "lamp",     "motor",
                                   "nest",   "oven",   "piano",  "rope",   "spoon",  "table",   "umbrella", "violin"};
static_assert(std::size(kThings) == kMaxRetrievalQuestions);

// What stands between the lines; no thing and no number in it.
constexpr const char* kFiller[] = {"Nobody asked about that for a long time, and nobody seemed to mind.",
                                   "The light stayed on until late, because the work had to be done.",
                                   "Some of it was old, some of it was new, and most of it was neither.",
                                   "They talked about the weather and about the people who had left.",
                                   "In the morning it was quiet again, as it always was at that hour."};

std::string question_of(std::size_t thing) { return fmt::format("The number of the {} is", kThings[thing]); }

// Every line is followed by the same number of lines of filler.
std::string document_of(const std::vector<std::string>& numbers, std::size_t filler_lines) {
  std::string text = kIntroduction;
  for (std::size_t thing = 0; thing < numbers.size(); ++thing) {
    text += fmt::format("{} {}\n", question_of(thing), numbers[thing]);
    for (std::size_t line = 0; line < filler_lines; ++line) {
      text += fmt::format("{}\n", kFiller[(thing * filler_lines + line) % std::size(kFiller)]);
    }
  }
  return text;
}

// The most lines of filler with which the document fits; tokens grow with lines.
std::size_t fitting_filler(const RetrievalSettings& settings, const std::vector<std::string>& numbers,
                           const std::function<std::size_t(const std::string&)>& count_tokens) {
  std::size_t fits = 0;
  std::size_t too_many = settings.max_tokens / settings.questions + 2;  // a line has more than one token
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
  std::vector<std::string> numbers;
  for (std::size_t thing = 0; thing < settings.questions; ++thing) {
    numbers.push_back(fmt::format("{}", 10000 + random() % 90000));
  }
  QuestionSettings result = {.name = "retrieval",
                             .document = document_of(numbers, fitting_filler(settings, numbers, count_tokens)),
                             .questions = {}};
  for (std::size_t thing = 0; thing < numbers.size(); ++thing) {
    result.questions.push_back({question_of(thing), numbers[thing]});
  }
  return result;
}

}  // namespace kvarn::bench
