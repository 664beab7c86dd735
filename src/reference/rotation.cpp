// Butterflies in the order of the format page, one block after the other.
#include "reference/rotation.hpp"

#include <bit>
#include <cmath>

namespace kvarn::reference {
namespace {

void rotate_block(std::span<float> block) {
  const std::size_t size = block.size();
  for (std::size_t half = 1; half < size; half *= 2) {
    for (std::size_t first = 0; first < size; first += 2 * half) {
      for (std::size_t i = first; i < first + half; ++i) {
        const float a = block[i];
        const float b = block[i + half];
        block[i] = a + b;
        block[i + half] = a - b;
      }
    }
  }
  const float norm = static_cast<float>(1.0 / std::sqrt(static_cast<double>(size)));
  for (float& value : block) value *= norm;
}

}  // namespace

std::vector<std::uint32_t> rotation_blocks(std::uint32_t dim) {
  std::vector<std::uint32_t> blocks;
  while (dim > 0) {
    blocks.push_back(std::bit_floor(dim));
    dim -= blocks.back();
  }
  return blocks;
}

void rotate(std::span<float> channels) {
  std::size_t begin = 0;
  for (const std::uint32_t size : rotation_blocks(static_cast<std::uint32_t>(channels.size()))) {
    rotate_block(channels.subspan(begin, size));
    begin += size;
  }
}

}  // namespace kvarn::reference
