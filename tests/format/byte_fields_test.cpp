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
    for (int count = -128; count < 128; ++count) {
      const auto middle = static_cast<std::int8_t>(count);
      const float zero = zero_of_middle(bits, step, middle);
      EXPECT_EQ(nearest_middle(bits, step, zero + step * top * 0.5f), middle);
    }
    EXPECT_EQ(nearest_middle(bits, step, 1e9f), 127);
    EXPECT_EQ(nearest_middle(bits, step, -1e9f), -128);
    for (const float far : {3.0f, -40.0f}) {
      EXPECT_NEAR(std::fabs(static_cast<float>(nearest_middle(bits, least_step(bits, far), far))), 127.0f, 0.5f);
    }
  }
}

}  // namespace
}  // namespace kvarn
