#include "questions.hpp"

#include <fmt/format.h>

#include <utility>

#include "content_hash.hpp"

namespace kvarn::bench {
namespace {

constexpr const char* kBlanks = " \t\r\n";

}  // namespace

std::string first_line(const std::string& text) {
  const std::size_t start = text.find_first_not_of(kBlanks);
  if (start == std::string::npos) return "";
  const std::string line = text.substr(start, text.find('\n', start) - start);
  return line.substr(0, line.find_last_not_of(kBlanks) + 1);
}

Questions::Questions(const EvalHost& host, QuestionSettings settings)
    : host_(host), settings_(std::move(settings)), document_(host.model.tokenize(settings_.document)) {
  for (const Question& question : settings_.questions) questions_.push_back(host.model.tokenize_part(question.text));
}

std::string Questions::key() const {
  ContentHash hash;
  hash.add(settings_.document);
  for (const Question& question : settings_.questions) hash.add(question.text).add(question.expected);
  return fmt::format("{}-{}-{}-{}", settings_.name, settings_.answer_tokens, settings_.micro_batch_tokens, hash.text());
}

double Questions::work() const {
  double work = static_cast<double>(document_.size());
  for (const std::vector<llama_token>& question : questions_) {
    work += static_cast<double>(question.size()) + kSingleTokenWork * static_cast<double>(settings_.answer_tokens);
  }
  return work;
}

DecodingSettings Questions::decoding() const {
  std::size_t tokens = document_.size();
  for (const std::vector<llama_token>& question : questions_) tokens += question.size() + settings_.answer_tokens;
  return {.context_tokens = static_cast<std::uint32_t>(tokens),
          .micro_batch_tokens = settings_.micro_batch_tokens,
          .sequences = static_cast<std::uint32_t>(questions_.size()) + 1};
}

std::string Questions::answer(DecodingContext& context, std::size_t question) const {
  const int sequence = static_cast<int>(question) + 1;
  context.fork(0, sequence);
  context.feed_all(questions_[question], sequence);
  std::string text;
  for (std::size_t step = 0; step < settings_.answer_tokens; ++step) {
    const llama_token token = context.likeliest(host_.model);
    text += host_.model.piece(token);
    const bool line_ended = text.find('\n', text.find_first_not_of(kBlanks)) != std::string::npos;
    if (line_ended || step + 1 == settings_.answer_tokens) break;
    context.feed_all({&token, 1}, sequence);
  }
  return first_line(text);
}

std::vector<std::string> Questions::answers(DecodingContext& context) const {
  context.feed_all(document_, 0);
  std::vector<std::string> given;
  for (std::size_t question = 0; question < questions_.size(); ++question) given.push_back(answer(context, question));
  return given;
}

Json Questions::result(const std::vector<std::string>& reference, const std::vector<std::string>& given) const {
  int correct = 0;
  int reference_correct = 0;
  int same = 0;
  for (std::size_t index = 0; index < given.size(); ++index) {
    correct += given[index] == settings_.questions[index].expected ? 1 : 0;
    reference_correct += reference[index] == settings_.questions[index].expected ? 1 : 0;
    same += given[index] == reference[index] ? 1 : 0;
  }
  return {{"questions", given.size()},           {"correct", correct},
          {"same_as_reference", same},           {"reference_correct", reference_correct},
          {"document_tokens", document_.size()}, {"answers", given}};
}

std::vector<Json> Questions::run(std::span<const CacheChoice> choices, Progress& progress) {
  DecodingContext reference_context = DecodingContext::reference(host_, decoding());
  const std::vector<std::string> reference = answers(reference_context);
  progress.advance(work());
  std::vector<Json> results;
  for (const CacheChoice& choice : choices) {
    DecodingContext context(host_, choice, decoding());
    results.push_back(result(reference, answers(context)));
    progress.advance(work());
  }
  return results;
}

}  // namespace kvarn::bench
