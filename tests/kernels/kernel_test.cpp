// Kernels of every instruction set against scalar truth and against each other.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/kernel_table.hpp"

namespace kvarn {
namespace {

TEST(KernelTable, UnknownName_IsRefused_KnownNameIsUsed) {
  EXPECT_FALSE(select_kernels("none such"));
  for (const KernelTable* table : available_kernels()) {
    EXPECT_TRUE(select_kernels(table->name));
    EXPECT_STREQ(kernels().name, table->name);
  }
}

TEST(HalfConversion, EveryHalf_WidensAsTheScalarCode) {
  for (const KernelTable* table : available_kernels()) {
    std::vector<HalfBits> halves(65536);
    for (std::size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<HalfBits>(i);
    std::vector<float> floats(halves.size());
    table->halves_to_floats(halves.data(), halves.size(), floats.data());
    for (std::size_t i = 0; i < halves.size(); ++i) {
      const float expected = half_to_float(halves[i]);
      if (std::isnan(expected)) {
        ASSERT_TRUE(std::isnan(floats[i])) << table->name << " " << i;
      } else {
        ASSERT_EQ(std::bit_cast<std::uint32_t>(expected), std::bit_cast<std::uint32_t>(floats[i]))
            << table->name << " " << i;
      }
    }
  }
}

TEST(HalfConversion, FloatsAroundEveryHalf_NarrowAsTheScalarCodeButSaturate) {
  std::vector<float> floats;
  for (std::uint32_t half = 0; half < 0x7C00u; ++half) {
    const float here = half_to_float(static_cast<HalfBits>(half));
    const float middle = (here + half_to_float(static_cast<HalfBits>(half + 1 < 0x7C00u ? half + 1 : half))) * 0.5f;
    for (const float value : {here, middle, std::nextafter(middle, 0.0f), std::nextafter(middle, 1e9f)}) {
      floats.push_back(value);
      floats.push_back(-value);
    }
  }
  for (const float value : {65504.0f, 65519.996f, 65520.0f, 1e9f, INFINITY, 0.0f, 2.98e-8f, 1e-30f, 1e-42f}) {
    floats.push_back(value);
    floats.push_back(-value);
  }
  floats.resize((floats.size() + 15) / 16 * 16, 0.0f);
  for (const KernelTable* table : available_kernels()) {
    std::vector<HalfBits> halves(floats.size());
    table->floats_to_halves(floats.data(), floats.size(), halves.data());
    for (std::size_t i = 0; i < floats.size(); ++i) {
      const float bounded = std::fmin(std::fmax(floats[i], -kHalfMax), kHalfMax);
      ASSERT_EQ(float_to_half(bounded), halves[i]) << table->name << " " << floats[i];
    }
  }
}

// One query over 16 keys at a time: weights are exp(score - max), 1 for the largest.
TEST(SoftmaxStep, Exponential_IsCloseAndTheSameEverywhere) {
  std::vector<float> arguments;
  for (float x = 0.0f; x > -90.0f; x -= 0.00371f) arguments.push_back(x);
  arguments.resize(arguments.size() / 15 * 15);
  for (const KernelTable* table : available_kernels()) {
    for (std::size_t at = 0; at < arguments.size(); at += 15) {
      std::vector<float> scores(16, 0.0f);
      std::copy_n(&arguments[at], 15, scores.begin() + 1);
      std::vector<float> expected_bits = scores;
      SoftmaxState state{-INFINITY, 0.0f};
      EXPECT_EQ(table->softmax_step({scores.data(), 16, nullptr, 1.0f, 0.0f}, &state), 0.0f);
      SoftmaxState first_state{-INFINITY, 0.0f};
      available_kernels()[0]->softmax_step({expected_bits.data(), 16, nullptr, 1.0f, 0.0f}, &first_state);
      ASSERT_EQ(0, std::memcmp(scores.data(), expected_bits.data(), 16 * sizeof(float)));
      for (std::size_t i = 0; i < 15; ++i) {
        const double truth = std::exp(static_cast<double>(arguments[at + i]));
        // The argument's own rounding (86 * 2^-24) and a polynomial of about one unit in the last place.
        ASSERT_NEAR(scores[i + 1], truth, truth * 6e-6 + 5e-38) << arguments[at + i];
      }
    }
  }
}

TEST(SoftmaxStep, HiddenKeys_WeighNothing) {
  for (const KernelTable* table : available_kernels()) {
    std::vector<float> scores(32, NAN);
    std::vector<float> mask(32, -INFINITY);
    scores[7] = 3.0f;
    mask[7] = 0.0f;
    SoftmaxState state{-INFINITY, 0.0f};
    table->softmax_step({scores.data(), 32, mask.data(), 1.0f, 0.0f}, &state);
    for (std::size_t i = 0; i < 32; ++i) EXPECT_EQ(scores[i], i == 7 ? 1.0f : 0.0f);
    EXPECT_EQ(state.max, 3.0f);
    EXPECT_EQ(state.sum, 1.0f);
    std::vector<float> nothing(32, NAN);
    mask[7] = -INFINITY;
    EXPECT_EQ(table->softmax_step({nothing.data(), 32, mask.data(), 1.0f, 0.0f}, &state), 1.0f);
    for (const float weight : nothing) EXPECT_EQ(weight, 0.0f);
    EXPECT_EQ(state.max, 3.0f);
  }
}

// Small whole numbers: every sum is exact, so the scalar sum in any order is the truth.
class Accumulate : public ::testing::TestWithParam<std::size_t> {};

TEST_P(Accumulate, HalfRowsAndHalfLanes_GiveTheExactSum) {
  const std::size_t vectors = GetParam();
  std::mt19937 random(static_cast<std::uint32_t>(vectors));
  std::uniform_int_distribution<int> digit(-9, 9);
  for (const std::size_t rows : {16u, 48u, 128u}) {
    for (const std::size_t lanes : {16u, 80u, 128u, 192u}) {
      std::vector<HalfBits> x(rows * lanes), transposed(rows * lanes);
      std::vector<float> a(vectors * rows), bias(vectors), scale(lanes), keep(vectors);
      for (float& value : a) value = static_cast<float>(digit(random));
      for (float& value : bias) value = static_cast<float>(digit(random));
      for (float& value : scale) value = static_cast<float>(digit(random));
      for (float& value : keep) value = static_cast<float>(digit(random));
      for (std::size_t r = 0; r < rows; ++r) {
        for (std::size_t l = 0; l < lanes; ++l) {
          x[r * lanes + l] = transposed[l * rows + r] = float_to_half(static_cast<float>(digit(random)));
        }
      }
      std::vector<const HalfBits*> row_pointers(rows), lane_pointers(lanes);
      for (std::size_t r = 0; r < rows; ++r) row_pointers[r] = &x[r * lanes];
      for (std::size_t l = 0; l < lanes; ++l) lane_pointers[l] = &transposed[l * rows];
      for (const KernelTable* table : available_kernels()) {
        for (const bool from_lanes : {false, true}) {
          std::vector<float> out(vectors * lanes, 2.0f), panel(kPanelLanes * rows);
          std::vector<float*> out_pointers(vectors);
          for (std::size_t i = 0; i < vectors; ++i) out_pointers[i] = &out[i * lanes];
          const Accumulation sum{
              a.data(), rows, vectors, bias.data(), scale.data(), keep.data(), out_pointers.data(), panel.data()};
          if (from_lanes) {
            table->accumulate_half_lanes(lane_pointers.data(), rows, lanes, sum);
          } else {
            table->accumulate_half_rows(row_pointers.data(), rows, lanes, sum);
          }
          for (std::size_t i = 0; i < vectors; ++i) {
            for (std::size_t l = 0; l < lanes; ++l) {
              float expected = bias[i];
              for (std::size_t r = 0; r < rows; ++r) expected += a[i * rows + r] * half_to_float(x[r * lanes + l]);
              ASSERT_EQ(out[i * lanes + l], 2.0f * keep[i] + expected * scale[l])
                  << table->name << " " << rows << "x" << lanes << " vector " << i << " lane " << l;
            }
          }
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Vectors, Accumulate, ::testing::Values(1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 64));

}  // namespace
}  // namespace kvarn
