// XXH3 in scalar code over eight independent accumulators, which compilers turn into vector code. Lengths up to 240
// bytes have formulas of their own; longer ones go through blocks of 16 stripes of 64 bytes.
#include "base/checksum.hpp"

#include <array>
#include <bit>
#include <cstddef>
#include <cstring>

namespace kvarn {
namespace {

static_assert(std::endian::native == std::endian::little, "words are read as they lie in memory");

constexpr std::uint64_t kPrime32[] = {0x9E3779B1u, 0x85EBCA77u, 0xC2B2AE3Du};
constexpr std::uint64_t kPrime64[] = {0x9E3779B185EBCA87u, 0xC2B2AE3D27D4EB4Fu, 0x165667B19E3779F9u,
                                      0x85EBCA77C2B2AE63u, 0x27D4EB2F165667C5u};
constexpr std::uint64_t kMixPrimes[] = {0x165667919E3779F9u, 0x9FB21C651E98DF25u};

constexpr std::size_t kStripeBytes = 64;
constexpr std::size_t kSecretStep = 8;  // a stripe's secret begins this far behind that of the one before it
constexpr std::size_t kSecretBytes = 192;
constexpr std::size_t kStripesPerBlock = (kSecretBytes - kStripeBytes) / kSecretStep;
constexpr std::size_t kBlockBytes = kStripesPerBlock * kStripeBytes;
constexpr std::size_t kMinSecretBytes = 136;  // of which lengths from 129 to 240 use the end

constexpr std::uint8_t kSecret[kSecretBytes] = {
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c, 0xde, 0xd4,
    0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f, 0xcb, 0x79, 0xe6, 0x4e,
    0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21, 0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43,
    0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c, 0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb,
    0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3, 0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19,
    0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8, 0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7,
    0xc7, 0x0b, 0x4f, 0x1d, 0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78,
    0x73, 0x64, 0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e, 0x2b, 0x16,
    0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce, 0x45, 0xcb, 0x3a, 0x8f,
    0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e};

std::uint64_t word64(const std::uint8_t* at) {
  std::uint64_t word;
  std::memcpy(&word, at, sizeof(word));
  return word;
}

std::uint32_t word32(const std::uint8_t* at) {
  std::uint32_t word;
  std::memcpy(&word, at, sizeof(word));
  return word;
}

std::uint64_t swap_bytes(std::uint64_t word) { return __builtin_bswap64(word); }

// The 128-bit product, its halves folded into one.
std::uint64_t fold_product(std::uint64_t left, std::uint64_t right) {
  const std::uint64_t low = (left & 0xFFFFFFFFu) * (right & 0xFFFFFFFFu);
  const std::uint64_t high_low = (left >> 32) * (right & 0xFFFFFFFFu);
  const std::uint64_t low_high = (left & 0xFFFFFFFFu) * (right >> 32);
  const std::uint64_t high = (left >> 32) * (right >> 32);
  const std::uint64_t cross = (low >> 32) + (high_low & 0xFFFFFFFFu) + low_high;
  return ((high_low >> 32) + (cross >> 32) + high) ^ ((cross << 32) | (low & 0xFFFFFFFFu));
}

std::uint64_t avalanche(std::uint64_t hash) {
  hash = (hash ^ (hash >> 37)) * kMixPrimes[0];
  return hash ^ (hash >> 32);
}

// That of XXH64, for the shortest inputs.
std::uint64_t old_avalanche(std::uint64_t hash) {
  hash = (hash ^ (hash >> 33)) * kPrime64[1];
  hash = (hash ^ (hash >> 29)) * kPrime64[2];
  return hash ^ (hash >> 32);
}

std::uint64_t mix16(const std::uint8_t* at, const std::uint8_t* secret) {
  return fold_product(word64(at) ^ word64(secret), word64(at + 8) ^ word64(secret + 8));
}

std::uint64_t checksum_to_16(const std::uint8_t* at, std::size_t size) {
  if (size > 8) {
    const std::uint64_t first = word64(at) ^ word64(kSecret + 24) ^ word64(kSecret + 32);
    const std::uint64_t last = word64(at + size - 8) ^ word64(kSecret + 40) ^ word64(kSecret + 48);
    return avalanche(size + swap_bytes(first) + last + fold_product(first, last));
  }
  if (size >= 4) {
    const std::uint64_t joined = word32(at + size - 4) + (std::uint64_t{word32(at)} << 32);
    std::uint64_t hash = joined ^ word64(kSecret + 8) ^ word64(kSecret + 16);
    hash ^= std::rotl(hash, 49) ^ std::rotl(hash, 24);
    hash *= kMixPrimes[1];
    hash = (hash ^ ((hash >> 35) + size)) * kMixPrimes[1];
    return hash ^ (hash >> 28);
  }
  if (size > 0) {
    const std::uint32_t joined = std::uint32_t{at[0]} << 16 | std::uint32_t{at[size >> 1]} << 24 |
                                 std::uint32_t{at[size - 1]} | static_cast<std::uint32_t>(size) << 8;
    return old_avalanche(joined ^ std::uint64_t{word32(kSecret) ^ word32(kSecret + 4)});
  }
  return old_avalanche(word64(kSecret + 56) ^ word64(kSecret + 64));
}

std::uint64_t checksum_to_128(const std::uint8_t* at, std::size_t size) {
  std::uint64_t sum = size * kPrime64[0];
  for (std::size_t pair = (size - 1) / 32 + 1; pair-- > 0;) {
    sum += mix16(at + 16 * pair, kSecret + 32 * pair);
    sum += mix16(at + size - 16 * (pair + 1), kSecret + 32 * pair + 16);
  }
  return avalanche(sum);
}

std::uint64_t checksum_to_240(const std::uint8_t* at, std::size_t size) {
  std::uint64_t sum = size * kPrime64[0];
  for (std::size_t piece = 0; piece < 8; ++piece) sum += mix16(at + 16 * piece, kSecret + 16 * piece);
  sum = avalanche(sum);
  for (std::size_t piece = 8; piece < size / 16; ++piece) sum += mix16(at + 16 * piece, kSecret + 16 * (piece - 8) + 3);
  return avalanche(sum + mix16(at + size - 16, kSecret + kMinSecretBytes - 17));
}

using Lanes = std::array<std::uint64_t, 8>;

void add_stripe(Lanes& lanes, const std::uint8_t* at, const std::uint8_t* secret) {
  std::uint64_t words[8];
  std::uint64_t keys[8];
  std::memcpy(words, at, sizeof(words));
  std::memcpy(keys, secret, sizeof(keys));
  for (std::size_t lane = 0; lane < 8; ++lane) keys[lane] ^= words[lane];
  for (std::size_t lane = 0; lane < 8; ++lane) {
    lanes[lane] += words[lane ^ 1] + (keys[lane] & 0xFFFFFFFFu) * (keys[lane] >> 32);
  }
}

void scramble(Lanes& lanes) {
  for (std::size_t lane = 0; lane < 8; ++lane) {
    const std::uint64_t key = word64(kSecret + kSecretBytes - kStripeBytes + 8 * lane);
    lanes[lane] = (lanes[lane] ^ (lanes[lane] >> 47) ^ key) * kPrime32[0];
  }
}

std::uint64_t checksum_long(const std::uint8_t* at, std::size_t size) {
  Lanes lanes = {kPrime32[2], kPrime64[0], kPrime64[1], kPrime64[2],
                 kPrime64[3], kPrime32[1], kPrime64[4], kPrime32[0]};
  const std::size_t blocks = (size - 1) / kBlockBytes;
  for (std::size_t block = 0; block < blocks; ++block) {
    for (std::size_t stripe = 0; stripe < kStripesPerBlock; ++stripe) {
      add_stripe(lanes, at + block * kBlockBytes + stripe * kStripeBytes, kSecret + stripe * kSecretStep);
    }
    scramble(lanes);
  }
  const std::size_t rest = (size - 1 - blocks * kBlockBytes) / kStripeBytes;
  for (std::size_t stripe = 0; stripe < rest; ++stripe) {
    add_stripe(lanes, at + blocks * kBlockBytes + stripe * kStripeBytes, kSecret + stripe * kSecretStep);
  }
  add_stripe(lanes, at + size - kStripeBytes, kSecret + kSecretBytes - kStripeBytes - 7);
  std::uint64_t sum = size * kPrime64[0];
  for (std::size_t pair = 0; pair < 4; ++pair) {
    const std::uint8_t* secret = kSecret + 11 + 16 * pair;
    sum += fold_product(lanes[2 * pair] ^ word64(secret), lanes[2 * pair + 1] ^ word64(secret + 8));
  }
  return avalanche(sum);
}

}  // namespace

std::uint64_t checksum(std::span<const std::uint8_t> bytes) {
  if (bytes.size() <= 16) return checksum_to_16(bytes.data(), bytes.size());
  if (bytes.size() <= 128) return checksum_to_128(bytes.data(), bytes.size());
  if (bytes.size() <= 240) return checksum_to_240(bytes.data(), bytes.size());
  return checksum_long(bytes.data(), bytes.size());
}

}  // namespace kvarn
