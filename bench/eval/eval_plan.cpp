#include "eval_plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <iterator>

#include "code_tasks.hpp"
#include "free_run.hpp"
#include "greedy_divergence.hpp"
#include "line_retrieval.hpp"
#include "lockstep.hpp"
#include "user_error.hpp"

namespace kvarn::bench {
namespace {

using program::UserError;

constexpr std::size_t kMaxLogitBytes = std::size_t{128} << 20;
constexpr std::size_t kPrefixTokens = 512;  // at most, before text that is written greedily
constexpr std::size_t kMinPrefixTokens = 16;

std::vector<llama_token> read_tokens(const EvalHost& host, const std::string& text_file) {
  std::ifstream stream(text_file, std::ios::binary);
  if (!stream) throw UserError(fmt::format("cannot read the text '{}'", text_file), "check the path given to --text");
  const std::string text{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  return host.model.tokenize(text);
}

// Every chunk starts as a text does, if the model knows such a token.
std::vector<llama_token> chunk_of(const EvalHost& host, const std::vector<llama_token>& tokens, std::size_t first,
                                  std::size_t count) {
  const auto start = tokens.begin() + static_cast<std::ptrdiff_t>(first);
  std::vector<llama_token> chunk(start, start + static_cast<std::ptrdiff_t>(count));
  if (host.model.starts_text()) chunk.front() = host.model.start_token();
  return chunk;
}

std::unique_ptr<Measurement> make_chunk(const EvalHost& host, const EvalOptions& options,
                                        const std::vector<llama_token>& tokens, std::size_t chunk,
                                        int micro_batch_tokens) {
  const auto count = static_cast<std::size_t>(options.context_tokens);
  const bool is_accumulation = micro_batch_tokens != options.micro_batch_tokens;
  return std::make_unique<Lockstep>(
      host, LockstepSettings{.tokens = chunk_of(host, tokens, chunk * count, count),
                             .name = fmt::format("{} {} of {}", is_accumulation ? "pseudo-decode, chunk" : "chunk",
                                                 chunk + 1, is_accumulation ? 1 : options.chunks),
                             .chunk = chunk,
                             .micro_batch_tokens = static_cast<std::uint32_t>(micro_batch_tokens),
                             .position_step = static_cast<std::uint32_t>(options.position_step),
                             .layers = options.layers && chunk == 0 && !is_accumulation});
}

std::size_t prefix_tokens(const EvalOptions& options, const std::vector<llama_token>& tokens) {
  return std::min({kPrefixTokens, static_cast<std::size_t>(options.context_tokens) / 2, tokens.size() / 2});
}

// Prefixes at even distances over the text.
std::unique_ptr<Measurement> make_greedy(const EvalHost& host, const EvalOptions& options,
                                         const std::vector<llama_token>& tokens) {
  const auto count = static_cast<std::size_t>(options.greedy_prefixes);
  const std::size_t length = prefix_tokens(options, tokens);
  GreedySettings settings = {.prefixes = {},
                             .tokens = static_cast<std::size_t>(options.greedy_tokens),
                             .micro_batch_tokens = static_cast<std::uint32_t>(options.micro_batch_tokens)};
  for (std::size_t prefix = 0; prefix < count; ++prefix) {
    settings.prefixes.push_back(chunk_of(host, tokens, (tokens.size() - length) * prefix / count, length));
  }
  return std::make_unique<GreedyDivergence>(host, std::move(settings));
}

std::unique_ptr<Measurement> make_retrieval(const EvalHost& host, const EvalOptions& options) {
  const RetrievalSettings settings = {.questions = static_cast<std::size_t>(options.retrieval_questions),
                                      .max_tokens = static_cast<std::size_t>(options.context_tokens) * 3 / 4,
                                      .seed = options.seed};
  const auto count_tokens = [&](const std::string& text) { return host.model.tokenize(text).size(); };
  return std::make_unique<Questions>(host, line_retrieval(settings, count_tokens));
}

}  // namespace

int default_position_step(int micro_batch_tokens, int vocabulary) {
  int step = 1;
  while (sizeof(float) * micro_batch_tokens / step * vocabulary > kMaxLogitBytes) step *= 2;
  return step;
}

std::vector<Measurement*> EvalPlan::all() const {
  std::vector<Measurement*> measurements;
  const auto add = [&](const std::unique_ptr<Measurement>& measurement) {
    if (measurement != nullptr) measurements.push_back(measurement.get());
  };
  std::for_each(chunks.begin(), chunks.end(), add);
  std::for_each(accumulation.begin(), accumulation.end(), add);
  for (const auto* measurement : {&greedy, &retrieval, &code, &free_run}) add(*measurement);
  return measurements;
}

EvalPlan make_plan(const EvalHost& host, const EvalOptions& options, const std::string& text_file) {
  const std::vector<llama_token> tokens = read_tokens(host, text_file);
  const std::size_t needed = static_cast<std::size_t>(options.context_tokens) * options.chunks;
  if (tokens.size() < std::max(needed, 2 * kMinPrefixTokens)) {
    throw UserError(fmt::format("'{}' has {} tokens, {} chunks of {} are {}", text_file, tokens.size(), options.chunks,
                                options.context_tokens, needed),
                    "give a longer --text, fewer --chunks or a smaller --context");
  }
  EvalPlan plan;
  for (std::size_t chunk = 0; chunk < static_cast<std::size_t>(options.chunks); ++chunk) {
    plan.chunks.push_back(make_chunk(host, options, tokens, chunk, options.micro_batch_tokens));
  }
  if (options.accumulation_micro_batch > 0) {
    plan.accumulation.push_back(make_chunk(host, options, tokens, 0, options.accumulation_micro_batch));
  }
  if (options.greedy_prefixes > 0) plan.greedy = make_greedy(host, options, tokens);
  if (options.retrieval_questions > 0) plan.retrieval = make_retrieval(host, options);
  if (options.code) plan.code = std::make_unique<Questions>(host, read_code_tasks(options.code_file));
  if (options.free_run_tokens > 0) {
    plan.free_run = std::make_unique<FreeRun>(
        host, FreeRunSettings{.prefix = chunk_of(host, tokens, 0, prefix_tokens(options, tokens)),
                              .tokens = static_cast<std::size_t>(options.free_run_tokens),
                              .micro_batch_tokens = static_cast<std::uint32_t>(options.micro_batch_tokens)});
  }
  return plan;
}

}  // namespace kvarn::bench
