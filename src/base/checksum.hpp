// The checksum of everything that leaves memory: XXH3, 64 bits, seed 0 (Yann Collet's xxHash, specified in its
// repository). Finds damage, proves nothing about who wrote the bytes. Knows bytes only.
#pragma once

#include <cstdint>
#include <span>

namespace kvarn {

// The same value as XXH3_64bits() of xxHash 0.8, on every machine. Any size, any alignment.
std::uint64_t checksum(std::span<const std::uint8_t> bytes);

}  // namespace kvarn
