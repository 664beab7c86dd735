#include "text_generation.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "engine.hpp"
#include "user_error.hpp"

namespace kvarn::program {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

struct SamplerDeleter {
  void operator()(llama_sampler* sampler) const { llama_sampler_free(sampler); }
};
using SamplerPointer = std::unique_ptr<llama_sampler, SamplerDeleter>;

SamplerPointer make_sampler(const SamplingSettings& settings) {
  SamplerPointer chain(llama_sampler_chain_init(llama_sampler_chain_default_params()));
  if (settings.temperature <= 0.0) {
    llama_sampler_chain_add(chain.get(), llama_sampler_init_greedy());
  } else {
    llama_sampler_chain_add(chain.get(), llama_sampler_init_temp(static_cast<float>(settings.temperature)));
    llama_sampler_chain_add(chain.get(), llama_sampler_init_dist(settings.seed));
  }
  return chain;
}

void decode(llama_context* context, llama_token* tokens, std::size_t count) {
  if (const int status = llama_decode(context, llama_batch_get_one(tokens, static_cast<int>(count))); status != 0) {
    throw UserError(fmt::format("llama.cpp could not compute (status {}): {}", status, Engine::take_error()),
                    "try again with --verbose");
  }
}

}  // namespace

Generation generate(const ModelSession& model, llama_context* context, std::vector<llama_token> prompt,
                    const SamplingSettings& settings, const PieceHandler& on_piece) {
  Generation result;
  result.prompt_tokens = prompt.size();
  const SamplerPointer sampler = make_sampler(settings);

  const Clock::time_point prompt_start = Clock::now();
  const std::size_t batch_tokens = llama_n_batch(context);
  for (std::size_t first = 0; first < prompt.size(); first += batch_tokens) {
    decode(context, prompt.data() + first, std::min(batch_tokens, prompt.size() - first));
  }
  llama_synchronize(context);
  result.prompt_seconds = seconds_since(prompt_start);

  const Clock::time_point generation_start = Clock::now();
  for (int count = 0; count < settings.max_tokens; ++count) {
    if (count > 0) {
      decode(context, &result.tokens.back(), 1);
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
