// `kvarn run`: generates text with the compressed cache and says what that cost.
#pragma once

#include <string>

#include "engine.hpp"
#include "text_generation.hpp"

namespace kvarn::program {

struct RunOptions {
  std::string model_file;
  std::string prompt;
  std::string prompt_file;
  std::string session_file;  // the conversation goes on from it, if it is there, and is saved to it
  CacheSettings cache;  // preset "off": the host's own f16 cache, no plugin
  SamplingSettings sampling;
  int samples = 1;         // continuations of the prompt
  int context_tokens = 0;  // 0: as many as the prompt and the new tokens need
  int micro_batch_tokens = 512;
  int threads = 0;  // 0: one a core
  bool compare = false;
  bool json = false;
  bool raw_prompt = false;  // no chat format around the prompt
  bool verbose = false;
};

// Throws UserError.
void run(const RunOptions& options);

}  // namespace kvarn::program
