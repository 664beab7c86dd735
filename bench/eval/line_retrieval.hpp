// Line retrieval: lines that give things their numbers, at even depths of a document that is filled up with other text,
// and a question about each. Deterministic; knows nothing of models.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "questions.hpp"

namespace kvarn::bench {

inline constexpr std::size_t kMaxRetrievalQuestions = 40;

struct RetrievalSettings {
  std::size_t questions = 10;     // 1 to kMaxRetrievalQuestions
  std::size_t max_tokens = 3072;  // of the document
  std::uint64_t seed = 1;
};

// The document is as long as count_tokens allows, but holds every line. An answer is right if it is exactly the five
// digits of its line.
QuestionSettings line_retrieval(const RetrievalSettings& settings,
                                const std::function<std::size_t(const std::string&)>& count_tokens);

}  // namespace kvarn::bench
