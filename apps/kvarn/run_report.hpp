// The table and the JSON line at the end of `run`.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "ggml-kvarn.h"
#include "text_generation.hpp"

namespace kvarn::program {

struct RunReport {
  std::string model;
  std::string preset;
  Generation generation;                      // the run that the text on the screen came from
  std::optional<ggml_kvarn_account> account;  // taken while its cache was live; nothing: the cache was not ours
  std::uint64_t resident_bytes = 0;           // anonymous memory of the process at that moment, 0 if unknown
  std::optional<Generation> host_generation;  // the same prompt on the host's own f16 cache
};

// Bits that one cached value takes, metadata and exact rows included: f16 is 16.
double bits_per_value(const ggml_kvarn_account& account);

// Number of equal tokens at the start of both texts.
std::size_t common_prefix_tokens(const Generation& a, const Generation& b);

// Several lines, the last one ends with a newline.
std::string format_table(const RunReport& report);
// One line without a newline.
std::string format_json(const RunReport& report);

}  // namespace kvarn::program
