// The plain read, written once: a sum that the compiler turns into vectors of whatever the including file may use.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kvarn::bench {
namespace {

std::uint64_t sum_words(const std::uint64_t* words, std::size_t count) {
  constexpr std::size_t kSums = 64;  // independent sums, so that loads and not additions set the pace
  std::uint64_t sums[kSums] = {};
  for (std::size_t first = 0; first < count; first += kSums) {
    for (std::size_t lane = 0; lane < kSums; ++lane) sums[lane] += words[first + lane];
  }
  std::uint64_t total = 0;
  for (const std::uint64_t sum : sums) total += sum;
  return total;
}

}  // namespace
}  // namespace kvarn::bench
