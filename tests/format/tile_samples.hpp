// Exact half-precision rows for the format tests, made from a seed by integer arithmetic only, so that every machine
// and compiler makes the same bits.
#pragma once

#include <cstdint>
#include <vector>

#include "base/half.hpp"
#include "reference/record.hpp"

namespace kvarn::testing {

// A fixed stream of pseudo-random numbers (SplitMix64).
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next();
  std::uint32_t below(std::uint32_t bound) { return static_cast<std::uint32_t>((next() >> 32) * bound >> 32); }

  // Nearly normal with mean 0 and variance 1: a sum of twelve uniform numbers, exact in single precision.
  float near_normal();

 private:
  std::uint64_t state_;
};

// The exact rows of one KV head's tile: values[token * dim + channel].
struct ExactRows {
  std::uint32_t dim;
  std::vector<HalfBits> values;

  ExactRows(std::uint32_t tokens, std::uint32_t channels) : dim(channels), values(std::size_t{tokens} * channels) {}

  HalfBits& at(std::uint32_t token, std::uint32_t channel) { return values[std::size_t{token} * dim + channel]; }
  HalfBits at(std::uint32_t token, std::uint32_t channel) const { return values[std::size_t{token} * dim + channel]; }
  std::vector<const HalfBits*> pointers() const;
};

// Every value the same.
ExactRows constant_rows(std::uint32_t tokens, std::uint32_t dim, HalfBits value);

// Nearly normal values of the given standard deviation.
ExactRows normal_rows(std::uint32_t tokens, std::uint32_t dim, float deviation, std::uint64_t seed);

// Nearly normal values times 2^i per channel and 2^j per token, i and j from -spread to spread.
ExactRows uneven_rows(std::uint32_t tokens, std::uint32_t dim, std::uint32_t spread, std::uint64_t seed);

}  // namespace kvarn::testing
