// What follows the name of a cache on the command lines of measurements: settings, each behind a colon; those of
// records are tile=N and fields=half or fields=byte.
#pragma once

#include <algorithm>
#include <charconv>
#include <string_view>
#include <vector>

#include "cache/cache_config.hpp"

namespace kvarn::bench {

// "k4v4:tile=64:sink=0" is k4v4, tile=64, sink=0. The first, the name, is always there.
inline std::vector<std::string_view> split_settings(std::string_view text) {
  std::vector<std::string_view> parts;
  std::size_t end = 0;
  for (std::size_t start = 0; end < text.size() || parts.empty(); start = end + 1) {
    end = std::min(text.find(':', start), text.size());
    parts.push_back(text.substr(start, end - start));
  }
  return parts;
}

// False, with the config untouched, if it is neither or has no such value.
inline bool apply_record_setting(std::string_view setting, CacheConfig& config) {
  const std::size_t equals = std::min(setting.find('='), setting.size());
  const std::string_view name = setting.substr(0, equals);
  const std::string_view value = setting.substr(std::min(equals + 1, setting.size()));
  if (name == "fields") {
    const auto version = record_version(value);
    config.version = version.value_or(config.version);
    return version.has_value();
  }
  std::uint32_t tokens = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), tokens);
  const bool is_number = error == std::errc() && end == value.data() + value.size();
  if (name != "tile" || !is_number || !valid_tile_tokens(tokens)) return false;
  config.tile_tokens = tokens;
  return true;
}

}  // namespace kvarn::bench
