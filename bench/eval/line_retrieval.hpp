// Line retrieval: a document of numbered lines that only differ in their numbers, and questions about lines at even
// depths. Deterministic; knows nothing of models.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "questions.hpp"

namespace kvarn::bench {

struct RetrievalSettings {
  std::size_t questions = 10;
  std::size_t max_tokens = 3072;  // of the document
  std::uint64_t seed = 1;
};

// The document is as long as count_tokens allows, but has at least one line a question. An answer is right if it is
// exactly the five digits of its line.
QuestionSettings line_retrieval(const RetrievalSettings& settings,
                                const std::function<std::size_t(const std::string&)>& count_tokens);

}  // namespace kvarn::bench
