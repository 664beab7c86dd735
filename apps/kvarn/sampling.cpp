#include "sampling.hpp"

#include <fmt/format.h>

#include "engine.hpp"
#include "user_error.hpp"

namespace kvarn::program {

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

void decode(llama_context* context, const llama_batch& batch) {
  if (const int status = llama_decode(context, batch); status != 0) {
    throw UserError(fmt::format("llama.cpp could not compute (status {}): {}", status, Engine::take_error()),
                    "try again with --verbose");
  }
}

}  // namespace kvarn::program
