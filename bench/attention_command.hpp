// kvarn-bench attention: one layer's attention of ours against the host's own, in one process, in turns.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kvarn::bench {

struct AttentionOptions {
  std::uint32_t heads = 32;
  std::uint32_t kv_heads = 8;
  std::uint32_t dim = 128;
  std::vector<std::string> shapes;  // "all" or HEADSxKV_HEADSxDIM; empty: the one above
  std::vector<std::uint32_t> keys = {1024, 4096, 8192, 16384, 32768};
  std::vector<std::uint32_t> queries = {1};
  std::vector<std::string> presets = {"k4v4"};
  std::uint32_t tail_tokens = 0;  // newest rows kept exact with few queries
  std::uint32_t layers = 1;       // copies of the data, visited in turn
  int threads = 0;                // 0: one a core
  int runs = 9;
  double sample_milliseconds = 2.0;
  std::string json_file;
  std::string command;  // the command line, for the file
};

// Prints a table and writes the file. Throws UserError for bad options and if our exact tiles do not give the host's
// result.
void measure_attention(AttentionOptions options);

}  // namespace kvarn::bench
