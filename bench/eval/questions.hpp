// Questions about a document: it is read once by the reference and by every cache, then every question forks from it
// and is answered greedily with one line.
#pragma once

#include <string>
#include <vector>

#include "decoding_context.hpp"
#include "measurement.hpp"

namespace kvarn::bench {

struct Question {
  std::string text;      // what follows the document, up to where the answer starts: a line's end belongs to the answer
  std::string expected;  // the right line, without blanks around it
};

struct QuestionSettings {
  std::string name;      // "retrieval", "code": the measurement's key
  std::string document;  // ends with a line's end
  std::vector<Question> questions;
  std::size_t answer_tokens = 16;  // at most
  std::uint32_t micro_batch_tokens = 512;
};

// Result of a choice: {questions, correct, same_as_reference (counts), reference_correct, document_tokens, answers
// [text]}. An answer is a line without blanks around it.
class Questions : public Measurement {
 public:
  Questions(const EvalHost& host, QuestionSettings settings);

  std::string key() const override;
  std::string title() const override { return settings_.name; }
  double work() const override;
  std::vector<Json> run(std::span<const CacheChoice> choices, Progress& progress) override;

 private:
  DecodingSettings decoding() const;
  std::vector<std::string> answers(DecodingContext& context) const;
  std::string answer(DecodingContext& context, std::size_t question) const;
  Json result(const std::vector<std::string>& reference, const std::vector<std::string>& given) const;

  EvalHost host_;
  QuestionSettings settings_;
  std::vector<llama_token> document_;
  std::vector<std::vector<llama_token>> questions_;
};

// The first line that holds anything but blanks, without blanks around it.
std::string first_line(const std::string& text);

}  // namespace kvarn::bench
