// `kvarn inspect`: what is in a session file: layers, tiles, bytes, settings, tokens.
#pragma once

#include <string>

namespace kvarn::program {

struct InspectOptions {
  std::string file;
  std::string source;  // a session of the same tokens to compare with; empty: none
  bool json = false;   // one line of JSON instead of tables
};

// Throws UserError if the file is no session that can be read, or cannot be compared with the source. Without one it
// reads descriptions alone: `kvarn verify` checks contents.
void inspect(const InspectOptions& options);

}  // namespace kvarn::program
