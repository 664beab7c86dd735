// Several continuations of one prompt: the prompt is read once, the continuations share its cells and are computed side by
// side, one token of each a pass.
#pragma once

#include <vector>

#include "text_generation.hpp"

namespace kvarn::program {

struct SampleGeneration {
  std::vector<Generation> samples;  // prompt and seconds stand in all of them; they are of all samples together
  std::size_t tokens() const;       // of all samples
};

// Sample i draws with seed + i. The context has `samples` sequences and holds prompt + samples * max_tokens. Throws
// UserError as generate().
SampleGeneration generate_samples(const ModelSession& model, llama_context* context, std::vector<llama_token> prompt,
                                  const SamplingSettings& settings, int samples);

}  // namespace kvarn::program
