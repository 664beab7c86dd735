// The plugin's settings: from the environment, or from a program through the registry.
#pragma once

#include <cstdint>
#include <string>

#include "cache/cache_config.hpp"

namespace ggml_kvarn {

struct Settings {
    kvarn::CacheConfig cache;
    std::string preset = "k4v4";
};

// Reads KVARN_PRESET, KVARN_SINK, KVARN_TAIL, KVARN_TILE, KVARN_LEVEL and KVARN_ISA (which is applied at once).
// Returns an empty string, or one line that says what is wrong and what would be right; `settings` is then unchanged.
std::string read_environment(Settings & settings);

// Sets what is given (preset may be null, counts negative: as the environment says). Errors as above.
std::string configure(Settings & settings, const char * preset, int64_t sink_tokens, int64_t tail_tokens);

}  // namespace ggml_kvarn
