// SHA-256 (FIPS 180-4) of bytes in memory, for the checksum lists of the golden vectors.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace kvarn::testing {

// The digest as 64 lower-case hexadecimal digits.
std::string sha256_hex(std::span<const std::uint8_t> bytes);

}  // namespace kvarn::testing
