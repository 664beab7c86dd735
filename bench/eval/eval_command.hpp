// kvarn-eval: how far every cache is from the host's own f16 cache, by all that measurements/ measure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cache_choice.hpp"

namespace kvarn::bench {

struct EvalOptions {
  std::string model_file;
  std::vector<std::string> text_files;
  std::vector<std::string> caches = {"f16", "k8v8", "k5v5", "k4v4", "k4v2", "k3v3", "k2v2", "q8_0", "q5_0", "q4_0"};
  std::vector<std::string> compared_with;  // those of `caches` that all others are set against
  std::string regime = "tail";             // tail, none or both
  ExactTokens exact;                       // of the regime "tail"
  int context_tokens = 4096;               // of a chunk
  int chunks = 1;
  int micro_batch_tokens = 512;
  int position_step = 0;    // every so manieth position is compared; 0: as many as fit 128 MiB of logits
  int first_position = -1;  // of a chunk that counts for the figures; negative: the second half
  int side_by_side = 0;     // caches that live at the same time; 0: as many as fit half of the free memory
  int threads = 0;          // 0: one a core
  bool layers = true;
  int accumulation_micro_batch = 0;  // 0: leave it out
  int greedy_prefixes = 0;           // 0: leave it out
  int greedy_tokens = 128;
  int free_run_tokens = 0;      // 0: leave it out
  int retrieval_questions = 0;  // 0: leave it out
  bool code = false;
  std::string code_file;
  std::uint64_t seed = 1;  // of the bootstrap and of the retrieval's numbers
  std::string state_folder;
  bool fresh = false;  // forget what an earlier run measured
  bool verbose = false;
  std::string json_file;
  std::string command;
};

// Minutes: the presets and baselines on one chunk.
void apply_quick(EvalOptions& options);
// Hours: four chunks, both regimes, everything else too.
void apply_full(EvalOptions& options);

// Prints tables and writes the file. Throws UserError.
void evaluate(EvalOptions options);

}  // namespace kvarn::bench
