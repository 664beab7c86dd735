// Amounts of memory as people write them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace kvarn::program {

// "8G", "1.5g", "512M", "4096K", "1073741824": bytes, or binary units. Nothing for anything else, for 0 and for more
// than 2^62.
std::optional<std::uint64_t> parse_byte_count(std::string_view text);

// "512 B", "12.3 MiB", "8.0 GiB".
std::string format_byte_count(std::uint64_t bytes);

}  // namespace kvarn::program
