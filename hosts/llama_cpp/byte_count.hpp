// Amounts of memory as people write them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace ggml_kvarn {

// "8G", "1.5g", "512M", "4096K", "1073741824": bytes, or binary units. Nothing for anything else, for 0 and for more than 2^62.
std::optional<uint64_t> parse_byte_count(std::string_view text);

// "512 B", "12.3 MiB", "8.0 GiB".
std::string format_byte_count(uint64_t bytes);

}  // namespace ggml_kvarn
