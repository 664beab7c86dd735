// How tokens are computed and chosen: one batch, one sampler.
#pragma once

#include <cstdint>
#include <memory>

#include "llama.h"

namespace kvarn::program {

struct SamplingSettings {
  int max_tokens = 128;
  double temperature = 0.0;  // 0: the likeliest token, always
  std::uint32_t seed = 1;
};

struct SamplerDeleter {
  void operator()(llama_sampler* sampler) const { llama_sampler_free(sampler); }
};
using SamplerPointer = std::unique_ptr<llama_sampler, SamplerDeleter>;

SamplerPointer make_sampler(const SamplingSettings& settings);

// Throws UserError if llama.cpp fails to compute.
void decode(llama_context* context, const llama_batch& batch);

}  // namespace kvarn::program
