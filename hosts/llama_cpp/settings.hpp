// The plugin's settings: from the environment, or from a program through the registry.
#pragma once

#include <cstdint>
#include <string>

#include "cache/cache_config.hpp"
#include "ggml-kvarn.h"

namespace ggml_kvarn {

struct Settings {
    kvarn::CacheConfig cache;
    std::string preset = "k4v4";
    std::string codec = "kvarn";
    uint64_t limit_bytes = 0;  // of all caches of the process together; 0: none
};

// Reads KVARN_PRESET, KVARN_SINK, KVARN_TAIL, KVARN_TILE, KVARN_LEVEL, KVARN_FIELDS, KVARN_CODEC, KVARN_LIMIT and KVARN_ISA (which is
// applied at once).
// Returns an empty string, or one line that says what is wrong and what would be right; `settings` is then unchanged.
std::string read_environment(Settings & settings);

// Sets what is given; what is not stays as it is. Errors as above.
std::string configure(Settings & settings, const ggml_kvarn_settings * given);

// Half a line for the log: what the settings keep exact and how they compress the rest.
std::string describe(const Settings & settings);

}  // namespace ggml_kvarn
