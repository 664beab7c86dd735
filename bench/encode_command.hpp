// kvarn-bench encode: how fast one thread turns exact rows into records, and what that is of an engine's time.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kvarn::bench {

struct EncodeOptions {
  std::vector<std::uint32_t> dims = {64, 128, 256};
  std::vector<std::uint32_t> bits = {8, 6, 5, 4, 3, 2};
  std::vector<std::string> levels = {"best", "fast", "official"};
  int runs = 9;
  double sample_milliseconds = 2.0;
  // For the shares of an engine's time, all of these; its speeds are wall-clock with `threads` threads.
  double prompt_tokens_per_second = 0;
  double decode_tokens_per_second = 0;
  std::uint32_t layers = 0;
  std::uint32_t kv_heads = 0;
  int threads = 1;
  std::string json_file;
  std::string command;
};

// Prints a table and writes the file. Throws UserError for bad options.
void measure_encode(const EncodeOptions& options);

}  // namespace kvarn::bench
