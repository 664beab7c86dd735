#include "greedy_divergence.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace kvarn::bench {

GreedyDivergence::GreedyDivergence(const EvalHost& host, GreedySettings settings)
    : host_(host), settings_(std::move(settings)) {}

std::string GreedyDivergence::key() const {
  return fmt::format("greedy-{}-{}-{}-{}", settings_.prefixes.size(), settings_.prefixes.front().size(),
                     settings_.tokens, settings_.micro_batch_tokens);
}

double GreedyDivergence::prefix_work(std::size_t prefix) const {
  return static_cast<double>(settings_.prefixes[prefix].size()) +
         kSingleTokenWork * static_cast<double>(settings_.tokens);
}

double GreedyDivergence::work() const {
  double work = 0.0;
  for (std::size_t prefix = 0; prefix < settings_.prefixes.size(); ++prefix) work += prefix_work(prefix);
  return work;
}

DecodingSettings GreedyDivergence::decoding() const {
  std::size_t longest = 0;
  for (const std::vector<llama_token>& prefix : settings_.prefixes) longest = std::max(longest, prefix.size());
  return {.context_tokens = static_cast<std::uint32_t>(longest + settings_.tokens),
          .micro_batch_tokens = settings_.micro_batch_tokens};
}

std::size_t GreedyDivergence::write_on(DecodingContext& context, std::size_t prefix,
                                       const std::vector<llama_token>* expected,
                                       std::vector<llama_token>& written) const {
  context.clear();
  context.feed_all(settings_.prefixes[prefix], 0);
  written.clear();
  while (written.size() < settings_.tokens) {
    const llama_token token = context.likeliest(host_.model);
    if (expected != nullptr && token != (*expected)[written.size()]) break;
    written.push_back(token);
    context.feed_all({&token, 1}, 0);
  }
  return written.size();
}

std::vector<Json> GreedyDivergence::run(std::span<const CacheChoice> choices, Progress& progress) {
  std::vector<std::vector<llama_token>> expected(settings_.prefixes.size());
  DecodingContext reference = DecodingContext::reference(host_, decoding());
  for (std::size_t prefix = 0; prefix < expected.size(); ++prefix) {
    write_on(reference, prefix, nullptr, expected[prefix]);
    progress.advance(prefix_work(prefix));
  }
  std::vector<Json> results;
  std::vector<llama_token> written;
  for (const CacheChoice& choice : choices) {
    DecodingContext context(host_, choice, decoding());
    Json steps = Json::array();
    for (std::size_t prefix = 0; prefix < expected.size(); ++prefix) {
      const std::size_t same = write_on(context, prefix, &expected[prefix], written);
      const double not_written = kSingleTokenWork * static_cast<double>(settings_.tokens - same);
      progress.skip(not_written);
      progress.advance(prefix_work(prefix) - not_written);
      steps.push_back(same);
    }
    results.push_back({{"tokens", settings_.tokens}, {"first_divergence", std::move(steps)}});
  }
  return results;
}

}  // namespace kvarn::bench
