#include "text_generation.hpp"

#include <algorithm>
#include <chrono>

namespace kvarn::program {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

}  // namespace

double read_prompt(llama_context* context, std::vector<llama_token>& prompt) {
  const Clock::time_point start = Clock::now();
  const std::size_t batch_tokens = llama_n_batch(context);
  for (std::size_t first = 0; first < prompt.size(); first += batch_tokens) {
    const std::size_t count = std::min(batch_tokens, prompt.size() - first);
    decode(context, llama_batch_get_one(prompt.data() + first, static_cast<int>(count)));
  }
  llama_synchronize(context);
  return seconds_since(start);
}

Generation generate(const ModelSession& model, llama_context* context, std::vector<llama_token> prompt,
                    const SamplingSettings& settings, const PieceHandler& on_piece) {
  Generation result;
  result.prompt_tokens = prompt.size();
  const SamplerPointer sampler = make_sampler(settings);
  result.prompt_seconds = read_prompt(context, prompt);

  const Clock::time_point generation_start = Clock::now();
  for (int count = 0; count < settings.max_tokens; ++count) {
    if (count > 0) {
      decode(context, llama_batch_get_one(&result.tokens.back(), 1));
      ++result.decoded_tokens;
    }
    const llama_token token = llama_sampler_sample(sampler.get(), context, -1);
    if (model.ends_text(token)) {
      break;
    }
    result.tokens.push_back(token);
    const std::string piece = model.piece(token);
    result.text += piece;
    on_piece(piece);
  }
  result.generation_seconds = seconds_since(generation_start);
  return result;
}

}  // namespace kvarn::program
