// One prompt through one context: prompt pass, then token after token, with the times of both.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "model_session.hpp"
#include "sampling.hpp"

namespace kvarn::program {

struct Generation {
  std::vector<llama_token> tokens;  // without the token that ended the text
  std::string text;
  std::size_t prompt_tokens = 0;
  double prompt_seconds = 0.0;
  std::size_t decoded_tokens = 0;  // single-token passes; the first token comes out of the prompt pass
  double generation_seconds = 0.0;

  double prompt_tokens_per_second() const { return prompt_seconds > 0 ? prompt_tokens / prompt_seconds : 0.0; }
  double generation_tokens_per_second() const {
    return generation_seconds > 0 ? decoded_tokens / generation_seconds : 0.0;
  }
};

// Called with the text of every token as it comes.
using PieceHandler = std::function<void(const std::string&)>;

// Reads a prompt that follows what sequence 0 has, in batches; returns seconds. Throws UserError as decode().
double read_prompt(llama_context* context, std::vector<llama_token>& prompt);

// The context must hold prompt + max_tokens. Throws UserError if llama.cpp fails to compute.
Generation generate(const ModelSession& model, llama_context* context, std::vector<llama_token> prompt,
                    const SamplingSettings& settings, const PieceHandler& on_piece);

}  // namespace kvarn::program
