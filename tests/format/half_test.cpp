// Half-precision conversions: all 65536 patterns one way, every rounding boundary the other way.
#include "base/half.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace kvarn {
namespace {

// The value of a finite pattern from its definition, not from bit tricks.
double defined_value(HalfBits half) {
  const int exponent = half >> 10 & 0x1F;
  const int mantissa = half & 0x3FF;
  const double magnitude = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  return half & 0x8000 ? -magnitude : magnitude;
}

TEST(Half, EveryFinitePattern_HasItsDefinedValueAndComesBack) {
  for (std::uint32_t pattern = 0; pattern < 0x10000; ++pattern) {
    const HalfBits half = static_cast<HalfBits>(pattern);
    if ((half & 0x7C00) == 0x7C00) continue;
    const float value = half_to_float(half);
    ASSERT_EQ(static_cast<double>(value), defined_value(half)) << pattern;
    ASSERT_EQ(std::signbit(value), (half & 0x8000) != 0) << pattern;
    ASSERT_EQ(float_to_half(value), half) << pattern;
  }
}

TEST(Half, InfinityAndNaN_StayInfinityAndNaN) {
  for (std::uint32_t pattern = 0x7C00; pattern < 0x8000; ++pattern) {
    for (const std::uint32_t sign : {0x0000u, 0x8000u}) {
      const HalfBits half = static_cast<HalfBits>(pattern | sign);
      const float value = half_to_float(half);
      ASSERT_EQ(std::isnan(value), pattern != 0x7C00) << pattern;
      ASSERT_EQ(std::isinf(value), pattern == 0x7C00) << pattern;
      const HalfBits back = float_to_half(value);
      ASSERT_EQ(back & 0xFC00, half & 0xFC00) << pattern;
      ASSERT_EQ((back & 0x3FF) == 0, pattern == 0x7C00) << pattern;
    }
  }
}

// Rounding is monotonic, so it is right everywhere if it is right at the middle of every two neighbours and beside it.
TEST(Half, EveryRoundingBoundary_GoesToNearestAndTiesToEven) {
  for (std::uint32_t pattern = 0; pattern < 0x7C00; ++pattern) {
    const HalfBits below = static_cast<HalfBits>(pattern);
    const HalfBits above = static_cast<HalfBits>(pattern + 1);
    const double upper = above == 0x7C00 ? 65536.0 : defined_value(above);
    const float middle = static_cast<float>((defined_value(below) + upper) / 2);  // exact: twelve significant bits
    const HalfBits even = pattern % 2 == 0 ? below : above;
    for (const HalfBits sign : {HalfBits{0}, HalfBits{0x8000}}) {
      const float side = sign == 0 ? 1.0f : -1.0f;
      const float infinity = std::numeric_limits<float>::infinity();
      ASSERT_EQ(float_to_half(side * std::nextafter(middle, 0.0f)), below | sign) << pattern;
      ASSERT_EQ(float_to_half(side * middle), even | sign) << pattern;
      ASSERT_EQ(float_to_half(side * std::nextafter(middle, infinity)), above | sign) << pattern;
    }
  }
}

TEST(Half, BeyondTheRange_RoundsToInfinityAndTinyToSignedZero) {
  EXPECT_EQ(float_to_half(65519.996f), 0x7BFF);
  EXPECT_EQ(float_to_half(65520.0f), 0x7C00);
  EXPECT_EQ(float_to_half(-std::numeric_limits<float>::max()), 0xFC00);
  EXPECT_EQ(float_to_half(std::numeric_limits<float>::denorm_min()), 0x0000);
  EXPECT_EQ(float_to_half(-std::numeric_limits<float>::denorm_min()), 0x8000);
}

}  // namespace
}  // namespace kvarn
