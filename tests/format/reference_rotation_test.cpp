// The rotation: its blocks, its matrix, and that it keeps products.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "reference/rotation.hpp"
#include "tile_samples.hpp"

namespace kvarn::reference {
namespace {

using testing::Random;

std::vector<float> random_channels(std::uint32_t dim, std::uint64_t seed) {
  Random random(seed);
  std::vector<float> channels(dim);
  for (float& channel : channels) channel = random.near_normal();
  return channels;
}

double product(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

TEST(ReferenceRotation, Blocks_AreThePowersOfTwoOfTheDimension) {
  using Blocks = std::vector<std::uint32_t>;
  EXPECT_EQ(rotation_blocks(128), (Blocks{128}));
  EXPECT_EQ(rotation_blocks(80), (Blocks{64, 16}));
  EXPECT_EQ(rotation_blocks(96), (Blocks{64, 32}));
  EXPECT_EQ(rotation_blocks(192), (Blocks{128, 64}));
  EXPECT_EQ(rotation_blocks(576), (Blocks{512, 64}));
  EXPECT_EQ(rotation_blocks(112), (Blocks{64, 32, 16}));
}

// Sylvester's matrix in natural order: entry (i, j) is (-1)^popcount(i & j) / sqrt(n).
TEST(ReferenceRotation, UnitVectors_GiveTheColumnsOfSylvestersMatrix) {
  for (const std::uint32_t dim : {16u, 80u, 128u}) {
    for (std::uint32_t column = 0; column < dim; ++column) {
      std::vector<float> channels(dim, 0.0f);
      channels[column] = 1.0f;
      rotate(channels);
      const std::uint32_t begin = dim == 80 && column >= 64 ? 64 : 0;
      const std::uint32_t size = dim == 80 ? (begin == 0 ? 64 : 16) : dim;
      for (std::uint32_t row = 0; row < dim; ++row) {
        const bool inside = row >= begin && row < begin + size;
        const float sign = std::popcount((row - begin) & (column - begin)) % 2 == 0 ? 1.0f : -1.0f;
        const float expected = inside ? sign * static_cast<float>(1.0 / std::sqrt(static_cast<double>(size))) : 0.0f;
        ASSERT_EQ(channels[row], expected) << dim << " " << row << " " << column;
      }
    }
  }
}

// Each of log2(n) butterfly steps and the final factor round once: relative error below (log2(n) + 2) * 2^-24 of the
// norm.
TEST(ReferenceRotation, Twice_GivesTheInputBack) {
  for (std::uint32_t dim = 16; dim <= 1024; dim += 16) {
    const std::vector<float> channels = random_channels(dim, dim);
    std::vector<float> twice = channels;
    rotate(twice);
    rotate(twice);
    const double norm = std::sqrt(product(channels, channels));
    for (std::uint32_t i = 0; i < dim; ++i) ASSERT_NEAR(twice[i], channels[i], norm * 24.0 * 0x1p-24) << dim;
  }
}

TEST(ReferenceRotation, BothSides_KeepTheProductOfQueryAndKey) {
  for (const std::uint32_t dim : {16u, 48u, 64u, 80u, 96u, 128u, 192u, 256u, 576u}) {
    std::vector<float> q = random_channels(dim, 1 + dim);
    std::vector<float> k = random_channels(dim, 2 + dim);
    const double plain = product(q, k);
    const double norms = std::sqrt(product(q, q) * product(k, k));
    rotate(q);
    rotate(k);
    EXPECT_NEAR(product(q, k), plain, norms * 24.0 * 0x1p-24) << dim;
  }
}

}  // namespace
}  // namespace kvarn::reference
