// Folding and integer dot products of every instruction set against scalar truth, bit for bit.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/kernel_table.hpp"
#include "reference/folding.hpp"
#include "reference/packing.hpp"

namespace kvarn {
namespace {

constexpr std::uint32_t kWidths[] = {8, 6, 5, 4, 3, 2};

enum class Vector { kNormal, kPeaked, kPeakedAndFlat, kOutlier, kZeros, kTiny, kHuge, kAlternating, kOneRow };
constexpr Vector kVectors[] = {Vector::kNormal,  Vector::kPeaked,      Vector::kPeakedAndFlat,
                               Vector::kOutlier, Vector::kZeros,       Vector::kTiny,
                               Vector::kHuge,    Vector::kAlternating, Vector::kOneRow};

std::vector<float> make_vector(Vector kind, std::size_t rows, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<float> values(rows);
  for (std::size_t row = 0; row < rows; ++row) {
    const float sample = normal(random);
    switch (kind) {
      case Vector::kNormal:
        values[row] = sample;
        break;
      case Vector::kPeaked:  // softmax weights: one key near 1, the others a little
        values[row] = row == rows / 3 ? 1.0f : 1e-3f;
        break;
      case Vector::kPeakedAndFlat:
        values[row] = row == 0 ? 1.0f : std::exp(sample - 6.0f);
        break;
      case Vector::kOutlier:
        values[row] = row == rows - 1 ? -300.0f : sample;
        break;
      case Vector::kZeros:
        values[row] = 0.0f;
        break;
      case Vector::kTiny:
        values[row] = sample * 1e-36f;
        break;
      case Vector::kHuge:
        values[row] = sample * 1e20f;
        break;
      case Vector::kAlternating:
        values[row] = row % 2 == 0 ? 1.0f : -1.0f;
        break;
      case Vector::kOneRow:
        values[row] = row == 5 ? 0.25f : 0.0f;
        break;
    }
  }
  return values;
}

struct Scales {
  std::vector<float> scale, zero;

  Scales(std::size_t rows, std::mt19937& random) {
    std::normal_distribution<float> normal;
    for (std::size_t row = 0; row < rows; ++row) {
      scale.push_back(std::exp(normal(random) * 0.4f));
      zero.push_back(-7.0f * scale.back() + normal(random));
    }
  }
};

TEST(FoldVectors, EveryVector_GivesTheDigitsOfTheReference) {
  std::mt19937 random(11);
  for (const std::uint32_t bits : kWidths) {
    for (const std::size_t rows : {16u, 48u, 64u, 80u, 128u, 256u, 1024u}) {
      for (const std::size_t count : {1u, 2u, 3u, 4u, 7u, 9u}) {
        const Scales scales(rows, random);
        std::vector<float> a;
        for (std::size_t i = 0; i < count; ++i) {
          const auto vector = make_vector(kVectors[(i + count + rows / 16) % std::size(kVectors)], rows, random);
          a.insert(a.end(), vector.begin(), vector.end());
        }
        for (const KernelTable* table : available_kernels()) {
          std::vector<std::int8_t> digits(2 * count * rows, 99);
          std::vector<FoldedVector> folded(count);
          table->fold_vectors(a.data(), rows, count, {scales.scale.data(), scales.zero.data(), rows, bits},
                              digits.data(), folded.data());
          for (std::size_t i = 0; i < count; ++i) {
            const reference::Folded expected = reference::fold({&a[i * rows], rows}, scales.scale, scales.zero, bits);
            ASSERT_EQ(folded[i].levels, expected.digits.size()) << table->name << " bits " << bits << " rows " << rows;
            ASSERT_EQ(folded[i].unit, expected.unit) << table->name;
            ASSERT_EQ(folded[i].bias, expected.bias) << table->name;
            for (std::size_t level = 0; level < expected.digits.size(); ++level) {
              const auto first = digits.begin() + static_cast<std::ptrdiff_t>((2 * i + level) * rows);
              ASSERT_EQ(std::vector<std::int8_t>(first, first + static_cast<std::ptrdiff_t>(rows)),
                        expected.digits[level])
                  << table->name << " level " << level;
            }
          }
        }
      }
    }
  }
}

// The digits stand for the folded vector as closely as the rule promises: what they leave, times the spread of the
// codes, is below a twentieth of what rounding to codes left.
TEST(FoldVectors, WhatDigitsLeave_IsSmallBesideTheCodes) {
  std::mt19937 random(12);
  for (const std::uint32_t bits : kWidths) {
    for (const Vector kind : kVectors) {
      const std::size_t rows = 128;
      const Scales scales(rows, random);
      const std::vector<float> a = make_vector(kind, rows, random);
      const reference::Folded folded = reference::fold(a, scales.scale, scales.zero, bits);
      const double top = (1u << bits) - 1u;
      const double code_variance = (top / 5.3) * (top / 5.3);
      double left_squared = 0.0, energy = 0.0;
      for (std::size_t row = 0; row < rows; ++row) {
        double digit = folded.digits[0][row];
        if (folded.digits.size() == 2) digit += folded.digits[1][row] / 254.0;
        const double value = static_cast<double>(a[row]) * scales.scale[row];
        left_squared += (value - digit * folded.unit) * (value - digit * folded.unit);
        energy += value * value;
      }
      EXPECT_LE(left_squared * code_variance, 0.05 * energy / 12.0 + 1e-60) << bits << " bits, vector " << int(kind);
    }
  }
}

struct CodeProblem {
  TileShape shape;
  std::vector<std::uint8_t> record;
  std::vector<std::vector<std::uint8_t>> codes;  // [lanes][rows]

  CodeProblem(const TileShape& of, bool all_largest, std::mt19937& random) : shape(of), record(record_bytes(of)) {
    for (std::uint32_t lane = 0; lane < shape.lanes; ++lane) {
      codes.emplace_back();
      for (std::uint32_t row = 0; row < shape.rows; ++row) {
        const std::uint32_t top = (1u << shape.bits) - 1u;
        const std::uint32_t code = all_largest ? top : std::uniform_int_distribution<std::uint32_t>(0, top)(random);
        reference::store_code(shape, record, row, lane, code);
        codes.back().push_back(static_cast<std::uint8_t>(code));
      }
    }
  }
};

void expect_dots(const CodeProblem& problem, std::size_t count, bool all_largest, std::mt19937& random) {
  std::normal_distribution<float> normal;
  const TileShape& shape = problem.shape;
  std::vector<float> lane_scale(shape.lanes), old(count * shape.lanes);
  for (float& value : lane_scale) value = normal(random);
  for (float& value : old) value = normal(random);
  std::vector<std::vector<std::int8_t>> digits(count);
  std::vector<DotVector> dots(count);
  for (std::size_t i = 0; i < count; ++i) {
    for (std::uint32_t row = 0; row < shape.rows; ++row) {
      const int digit = all_largest ? (i % 2 == 0 ? 127 : -127) : std::uniform_int_distribution<int>(-127, 127)(random);
      digits[i].push_back(static_cast<std::int8_t>(digit));
    }
    dots[i] = {digits[i].data(), nullptr, normal(random), normal(random), normal(random), i % 3 != 0};
  }
  std::vector<float> expected = old;
  for (std::size_t i = 0; i < count; ++i) {
    for (std::uint32_t lane = 0; lane < shape.lanes; ++lane) {
      float& out = expected[i * shape.lanes + lane];
      const auto sum = static_cast<float>(reference::dot(digits[i], problem.codes[lane]));
      const float value = (sum * dots[i].unit + dots[i].bias) * lane_scale[lane];
      out = dots[i].adds ? out * dots[i].keep + value : value;
    }
  }
  for (const KernelTable* table : available_kernels()) {
    std::vector<float> out = old;
    for (std::size_t i = 0; i < count; ++i) dots[i].out = &out[i * shape.lanes];
    table->dot_codes({problem.record.data() + codes_offset(shape), shape.rows, shape.lanes, shape.bits}, dots.data(),
                     count, lane_scale.data());
    ASSERT_EQ(0, std::memcmp(out.data(), expected.data(), out.size() * sizeof(float)))
        << table->name << " " << shape.bits << " bits " << shape.rows << "x" << shape.lanes << " count " << count;
  }
}

TEST(DotCodes, EveryWidthShapeAndCount_GivesTheExactSums) {
  std::mt19937 random(13);
  for (const std::uint32_t bits : kWidths) {
    for (const std::uint32_t rows : {16u, 32u, 48u, 80u, 128u, 256u}) {
      for (const std::uint32_t lanes : {16u, 48u, 64u, 80u, 128u}) {
        const CodeProblem problem({rows, lanes, bits}, false, random);
        for (const std::size_t count : {1u, 2u, 3u, 4u, 5u, 6u, 7u, 8u, 9u, 16u, 19u}) {
          expect_dots(problem, count, false, random);
        }
      }
    }
  }
}

// The largest codes and digits there are: no instruction set may saturate or overflow on the way.
TEST(DotCodes, LargestCodesAndDigits_GiveTheExactSums) {
  std::mt19937 random(14);
  for (const std::uint32_t bits : kWidths) {
    for (const std::uint32_t rows : {16u, 48u, 128u, 1024u}) {
      const CodeProblem problem({rows, 32, bits}, true, random);
      for (const std::size_t count : {1u, 2u, 3u, 4u, 8u}) expect_dots(problem, count, true, random);
    }
  }
}

}  // namespace
}  // namespace kvarn
