// kvarn-bench steps: how long every single decode step takes, with the plugin while it seals tiles, and without.
#pragma once

#include <string>
#include <vector>

namespace kvarn::bench {

struct StepsOptions {
  std::string model_file;
  std::vector<std::string> presets = {"k4v4"};
  int depth = 512;  // tokens of random prompt before the first step
  int steps = 600;  // enough for four tiles to be sealed
  int threads = 0;  // 0: one a core
  int runs = 3;     // rounds; each runs the host and every preset once
  std::string json_file;
  std::string command;
};

// Prints a table and writes the file. Throws UserError if the model cannot be loaded or a preset is none.
void measure_steps(StepsOptions options);

}  // namespace kvarn::bench
