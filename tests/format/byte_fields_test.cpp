// Fields of one byte: every byte is a number of its own, and rounding finds the nearest.
#include "format/byte_fields.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace kvarn {
namespace {

constexpr std::uint32_t kWidths[] = {8, 6, 5, 4, 3, 2};

std::vector<ByteScale> all_scales() {
  std::vector<ByteScale> scales = {kLaneByteScale};
  for (const std::uint32_t bits : kWidths) scales.push_back(row_byte_scale(bits));
  return scales;
}

TEST(ByteFields, Scales_GrowFromByteToByteAndRoundToThemselves) {
  for (const ByteScale& scale : all_scales()) {
    for (int byte = 0; byte < 256; ++byte) {
      const float value = scale_of_byte(scale, static_cast<std::uint8_t>(byte));
      EXPECT_EQ(nearest_scale(scale, value), byte);
      if (byte > 0) {
        EXPECT_GT(value, scale_of_byte(scale, static_cast<std::uint8_t>(byte - 1)));
      }
    }
  }
  EXPECT_EQ(scale_of_byte(kLaneByteScale, 0), 0x1p-16f);
  EXPECT_EQ(scale_of_byte(kLaneByteScale, 255), 1.875f * 0x1p15f);
  EXPECT_EQ(scale_of_byte(row_byte_scale(4), 0), 0x1p-6f);
}

TEST(ByteFields, NearestScale_IsNearestWithTiesToEven) {
  for (const ByteScale& scale : all_scales()) {
    for (int byte = 0; byte < 255; ++byte) {
      const float below = scale_of_byte(scale, static_cast<std::uint8_t>(byte));
      const float above = scale_of_byte(scale, static_cast<std::uint8_t>(byte + 1));
      const float middle = (below + above) * 0.5f;
      EXPECT_EQ(nearest_scale(scale, std::nextafter(middle, below)), byte);
      EXPECT_EQ(nearest_scale(scale, std::nextafter(middle, above)), byte + 1);
      EXPECT_EQ(nearest_scale(scale, middle), byte + byte % 2);
    }
    EXPECT_EQ(nearest_scale(scale, 0x1p-140f), 0);
    EXPECT_EQ(nearest_scale(scale, 0x1p127f), 255);
  }
}

TEST(ByteFields, Middles_ReachFarToEitherSide) {
  for (const std::uint32_t bits : kWidths) {
    const float step = 0.75f;
    const float top = static_cast<float>((1u << bits) - 1u);
    for (int byte = 0; byte < 256; ++byte) {
      const auto middle = static_cast<std::uint8_t>(byte);
      const float zero = zero_of_middle(bits, step, middle);
      const int minus_zero = 128;
      EXPECT_EQ(nearest_middle(bits, step, zero + step * top * 0.5f), byte == minus_zero ? 0 : byte);
    }
    EXPECT_EQ(nearest_middle(bits, step, 1e9f), 127);
    EXPECT_EQ(nearest_middle(bits, step, -1e9f), 255);
    EXPECT_EQ(nearest_middle(bits, least_step(bits, 3.0f), 3.0f), 127);
    EXPECT_EQ(nearest_middle(bits, least_step(bits, -40.0f), -40.0f), 255);
    EXPECT_GE(steps_of_middle(bits, kLargestMiddle), static_cast<float>(1u << bits) * 0.96f);
  }
  EXPECT_EQ(steps_of_middle(4, 1), 1.0f / 256.0f);
  EXPECT_EQ(steps_of_middle(2, 0x80 | 16), -1.0f / 16.0f);
  EXPECT_EQ(steps_of_middle(5, 127), 247.0f / 8.0f);
}

TEST(ByteFields, NearestMiddle_IsNearest) {
  for (const std::uint32_t bits : kWidths) {
    for (int byte = 0; byte < 127; ++byte) {
      const auto below = static_cast<std::uint8_t>(byte);
      const float half_way = (steps_of_middle(bits, below) + steps_of_middle(bits, below + 1)) * 0.5f;
      EXPECT_EQ(nearest_middle(bits, 1.0f, half_way * 0.9999f), byte);
      EXPECT_EQ(nearest_middle(bits, 1.0f, half_way * -1.0001f), 128 + byte + 1);
    }
  }
}

}  // namespace
}  // namespace kvarn
