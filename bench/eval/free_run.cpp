#include "free_run.hpp"

#include <fmt/format.h>

#include <memory>
#include <utility>

#include "score_json.hpp"

namespace kvarn::bench {

FreeRun::FreeRun(const EvalHost& host, FreeRunSettings settings) : host_(host), settings_(std::move(settings)) {}

std::string FreeRun::key() const {
  return fmt::format("free-run-{}-{}-{}", settings_.prefix.size(), settings_.tokens, settings_.micro_batch_tokens);
}

std::string FreeRun::title() const { return fmt::format("free run of {} tokens", settings_.tokens); }

double FreeRun::work() const {
  return static_cast<double>(settings_.prefix.size()) + kSingleTokenWork * static_cast<double>(settings_.tokens);
}

std::vector<Json> FreeRun::run(std::span<const CacheChoice> choices, Progress& progress) {
  const DecodingSettings decoding = {
      .context_tokens = static_cast<std::uint32_t>(settings_.prefix.size() + settings_.tokens),
      .micro_batch_tokens = settings_.micro_batch_tokens};
  DecodingContext reference = DecodingContext::reference(host_, decoding);
  std::vector<std::unique_ptr<DecodingContext>> others;
  for (const CacheChoice& choice : choices)
    others.push_back(std::make_unique<DecodingContext>(host_, choice, decoding));

  const double contexts = static_cast<double>(choices.size()) + 1.0;
  reference.feed_all(settings_.prefix, 0);
  for (const auto& other : others) other->feed_all(settings_.prefix, 0);
  progress.advance(contexts * static_cast<double>(settings_.prefix.size()));
  std::vector<std::vector<PositionScore>> scores(choices.size());
  for (std::size_t step = 0; step < settings_.tokens; ++step) {
    const llama_token token = reference.likeliest(host_.model);
    for (std::size_t index = 0; index < others.size(); ++index) {
      scores[index].push_back(compare_logits(reference.logits().row(0), others[index]->logits().row(0), token));
      others[index]->feed_all({&token, 1}, 0);
    }
    reference.feed_all({&token, 1}, 0);
    progress.advance(contexts * kSingleTokenWork);
  }
  std::vector<Json> results;
  for (const std::vector<PositionScore>& of_choice : scores) results.push_back(scores_json(of_choice));
  return results;
}

}  // namespace kvarn::bench
