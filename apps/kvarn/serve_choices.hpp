// `kvarn serve-choices`: which options llama-server is to get so that a number of agents stays in the compressed cache,
// and why. The front door runs it before llama-server; what the user gave himself is never changed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kvarn::program {

struct ServeOptions {
  std::string model_file;
  std::uint32_t agents = 0;                 // 0: as many as slots were given, else llama-server's own default
  std::uint32_t context_tokens = 0;         // of one agent; 0: as long as fits and as the model was trained for
  std::uint64_t memory_bytes = 0;           // 0: what the machine has available
  std::vector<std::string> server_options;  // as the user gave them
};

// Prints to stdout what is to be added, one word a line: options of llama-server, and KVARN_LIMIT=BYTES for the
// environment; to stderr what was picked and why. Throws UserError.
void serve_choices(const ServeOptions& options);

}  // namespace kvarn::program
