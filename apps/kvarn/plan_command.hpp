// `kvarn plan`: what contexts of a model cost under each preset, and how many fit into memory. Reads metadata only.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine.hpp"

namespace kvarn::program {

struct PlanOptions {
  std::string model_file;
  std::uint64_t memory_bytes = 0;             // 0: what the machine has available
  std::vector<std::uint32_t> context_tokens;  // empty: a short one, a long one, and what the model was trained for
  std::vector<std::string> presets;           // beside the named ones
  CacheSettings cache;                        // level, sink and tail of all presets
  std::uint32_t micro_batch_tokens = 512;
  bool unified = false;  // all contexts in one stream of cells
  bool json = false;
};

// Throws UserError.
void plan(const PlanOptions& options);

}  // namespace kvarn::program
