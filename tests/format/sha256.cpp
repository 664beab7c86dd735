// The constants are computed from their definition: fractional bits of square and cube roots of the first primes.
#include "sha256.hpp"

#include <array>
#include <bit>
#include <cstdio>
#include <vector>

namespace kvarn::testing {
namespace {

using Words = std::array<std::uint32_t, 8>;

std::array<std::uint32_t, 64> first_primes() {
  std::array<std::uint32_t, 64> primes{};
  std::size_t count = 0;
  for (std::uint32_t candidate = 2; count < primes.size(); ++candidate) {
    bool prime = true;
    for (std::size_t i = 0; i < count; ++i) prime = prime && candidate % primes[i] != 0;
    if (prime) primes[count++] = candidate;
  }
  return primes;
}

// floor(n^(1/power) * 2^32) mod 2^32 by bisection over 128-bit integers; power is 2 or 3, n at most 311.
std::uint32_t root_fraction(std::uint32_t n, int power) {
  using Wide = unsigned __int128;
  std::uint64_t low = 0;
  std::uint64_t high = std::uint64_t{20} << 32;
  while (high - low > 1) {
    const std::uint64_t middle = low + (high - low) / 2;
    const Wide square = Wide{middle} * middle;  // scaled by 2^64
    // A cube does not fit 128 bits at full scale: compare middle^3 / 2^32 with n * 2^64.
    const Wide value = power == 2 ? square : (square >> 32) * middle + (((square & 0xFFFFFFFFu) * middle) >> 32);
    (value <= Wide{n} << 64 ? low : high) = middle;
  }
  return static_cast<std::uint32_t>(low);
}

std::vector<std::uint8_t> padded(std::span<const std::uint8_t> bytes) {
  std::vector<std::uint8_t> message(bytes.begin(), bytes.end());
  message.push_back(0x80);
  while (message.size() % 64 != 56) message.push_back(0);
  const std::uint64_t bits = std::uint64_t{8} * bytes.size();
  for (int shift = 56; shift >= 0; shift -= 8) message.push_back(static_cast<std::uint8_t>(bits >> shift));
  return message;
}

std::array<std::uint32_t, 64> schedule(const std::uint8_t* block) {
  std::array<std::uint32_t, 64> w{};
  for (std::size_t i = 0; i < 16; ++i) {
    for (std::size_t byte = 0; byte < 4; ++byte) w[i] = w[i] << 8 | block[4 * i + byte];
  }
  for (std::size_t i = 16; i < 64; ++i) {
    const std::uint32_t s0 = std::rotr(w[i - 15], 7) ^ std::rotr(w[i - 15], 18) ^ w[i - 15] >> 3;
    const std::uint32_t s1 = std::rotr(w[i - 2], 17) ^ std::rotr(w[i - 2], 19) ^ w[i - 2] >> 10;
    w[i] = w[i - 16] + s0 + w[i - 7] + s1;
  }
  return w;
}

void compress(Words& state, const std::uint8_t* block, const std::array<std::uint32_t, 64>& constants) {
  const std::array<std::uint32_t, 64> w = schedule(block);
  auto [a, b, c, d, e, f, g, h] = state;
  for (std::size_t i = 0; i < 64; ++i) {
    const std::uint32_t s1 = std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25);
    const std::uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + constants[i] + w[i];
    const std::uint32_t s0 = std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22);
    const std::uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
    h = g, g = f, f = e, e = d + t1;
    d = c, c = b, b = a, a = t1 + t2;
  }
  const Words round{a, b, c, d, e, f, g, h};
  for (std::size_t i = 0; i < 8; ++i) state[i] += round[i];
}

}  // namespace

std::string sha256_hex(std::span<const std::uint8_t> bytes) {
  const std::array<std::uint32_t, 64> primes = first_primes();
  std::array<std::uint32_t, 64> constants{};
  for (std::size_t i = 0; i < 64; ++i) constants[i] = root_fraction(primes[i], 3);
  Words state{};
  for (std::size_t i = 0; i < 8; ++i) state[i] = root_fraction(primes[i], 2);
  const std::vector<std::uint8_t> message = padded(bytes);
  for (std::size_t at = 0; at < message.size(); at += 64) compress(state, &message[at], constants);
  std::string hex;
  for (const std::uint32_t word : state) {
    char digits[9];
    std::snprintf(digits, sizeof digits, "%08x", word);
    hex += digits;
  }
  return hex;
}

}  // namespace kvarn::testing
