// Names that tests give the settings of a cache.
#pragma once

#include <gtest/gtest.h>

#include <string_view>

#include "cache/cache_config.hpp"

namespace kvarn {

// A preset, with "+bytes" behind it for records whose fields are of one byte.
inline CacheConfig named_config(std::string_view name) {
  constexpr std::string_view kBytes = "+bytes";
  CacheConfig config;
  if (name.ends_with(kBytes)) {
    config.version = RecordVersion::kBytes;
    name.remove_suffix(kBytes.size());
  }
  EXPECT_EQ(apply_preset(name, config), Status::kOk);
  return config;
}

}  // namespace kvarn
