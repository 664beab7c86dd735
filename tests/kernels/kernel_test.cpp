// Kernels of every instruction set against scalar truth and against each other.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "base/bfloat16.hpp"
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

TEST(HalfConversion, Nan_NarrowsToNan) {
  std::vector<float> floats;  // both signs, a signalling one, a full payload
  for (const std::uint32_t bits : {0x7FC00000u, 0xFFC00000u, 0x7F800001u, 0x7FFFFFFFu}) {
    floats.resize(floats.size() + 4, std::bit_cast<float>(bits));
  }
  for (const KernelTable* table : available_kernels()) {
    std::vector<HalfBits> halves(floats.size());
    table->floats_to_halves(floats.data(), floats.size(), halves.data());
    for (const HalfBits half : halves) EXPECT_GT(half & 0x7FFFu, 0x7C00u) << table->name;
  }
}

TEST(Bfloat16Conversion, EveryNumber_NarrowsToTheHalfOfTheSameFloat) {
  std::vector<Bfloat16Bits> all;
  for (std::uint32_t bits = 0; bits < 0x10000u; ++bits) {
    if ((bits & 0x7F80u) != 0x7F80u) all.push_back(static_cast<Bfloat16Bits>(bits));
  }
  for (const KernelTable* table : available_kernels()) {
    std::vector<HalfBits> halves(all.size());
    ASSERT_TRUE(table->bfloats_to_halves(all.data(), all.size(), halves.data())) << table->name;
    for (std::size_t i = 0; i < all.size(); ++i) {
      const float bounded = std::fmin(std::fmax(bfloat16_to_float(all[i]), -kHalfMax), kHalfMax);
      ASSERT_EQ(float_to_half(bounded), halves[i]) << table->name << " " << all[i];
    }
  }
}

TEST(Bfloat16Conversion, NumbersThatAreNotFinite_AreFoundInEveryPlace) {
  for (const KernelTable* table : available_kernels()) {
    for (std::size_t place = 0; place < 48; ++place) {
      for (const Bfloat16Bits bad : {0x7F80, 0xFF80, 0x7FC0, 0xFF81}) {
        std::vector<Bfloat16Bits> row(48, 0x3F80);
        row[place] = bad;
        std::vector<HalfBits> halves(row.size());
        ASSERT_FALSE(table->bfloats_to_halves(row.data(), row.size(), halves.data())) << table->name << " " << place;
      }
    }
  }
}

TEST(Bfloat16Conversion, EveryHalf_WidensToTheNearestNumber) {
  std::vector<HalfBits> all;
  for (std::uint32_t bits = 0; bits < 0x10000u; ++bits) {
    if ((bits & 0x7C00u) != 0x7C00u) all.push_back(static_cast<HalfBits>(bits));
  }
  for (const KernelTable* table : available_kernels()) {
    std::vector<Bfloat16Bits> upper(all.size());
    table->halves_to_bfloats(all.data(), all.size(), upper.data());
    for (std::size_t i = 0; i < all.size(); ++i) {
      ASSERT_EQ(float_to_bfloat16(half_to_float(all[i])), upper[i]) << table->name << " " << all[i];
    }
  }
}

// One query over 16 keys at a time: weights are exp(score - max), 1 for the largest.
TEST(SoftmaxRows, Exponential_IsCloseAndTheSameEverywhere) {
  std::vector<float> arguments;
  for (float x = 0.0f; x > -90.0f; x -= 0.00371f) arguments.push_back(x);
  arguments.resize(arguments.size() / 15 * 15);
  for (const KernelTable* table : available_kernels()) {
    for (std::size_t at = 0; at < arguments.size(); at += 15) {
      std::vector<float> scores(16, 0.0f);
      std::copy_n(&arguments[at], 15, scores.begin() + 1);
      std::vector<float> expected_bits = scores;
      SoftmaxState state{}, first_state{};
      table->softmax_rows(scores.data(), 16, 1, 16, &state);
      available_kernels()[0]->softmax_rows(expected_bits.data(), 16, 1, 16, &first_state);
      ASSERT_EQ(0, std::memcmp(scores.data(), expected_bits.data(), 16 * sizeof(float)));
      for (std::size_t i = 0; i < 15; ++i) {
        const double truth = std::exp(static_cast<double>(arguments[at + i]));
        // The argument's own rounding (86 * 2^-24) and a polynomial of about one unit in the last place.
        ASSERT_NEAR(scores[i + 1], truth, truth * 6e-6 + 5e-38) << arguments[at + i];
      }
    }
  }
}

TEST(SoftmaxRows, HiddenKeys_WeighNothing) {
  for (const KernelTable* table : available_kernels()) {
    std::vector<float> scores(32, NAN);
    std::vector<float> mask(32, -INFINITY);
    scores[7] = 3.0f;
    mask[7] = 0.0f;
    table->finish_scores({scores.data(), 32, mask.data(), 1.0f, 0.0f});
    SoftmaxState state{};
    table->softmax_rows(scores.data(), 32, 1, 32, &state);
    for (std::size_t i = 0; i < 32; ++i) EXPECT_EQ(scores[i], i == 7 ? 1.0f : 0.0f);
    EXPECT_EQ(state.max, 3.0f);
    EXPECT_EQ(state.sum, 1.0f);
    std::fill(scores.begin(), scores.end(), -INFINITY);
    table->softmax_rows(scores.data(), 32, 1, 32, &state);
    for (const float weight : scores) EXPECT_EQ(weight, 0.0f);
    EXPECT_EQ(state.max, -INFINITY);
    EXPECT_EQ(state.sum, 0.0f);
  }
}

// Rows are taken several at once, counts in whole groups of 16: every row as if it were alone.
TEST(SoftmaxRows, AnyNumberOfRowsAndKeys_GivesWhatEachRowGivesAlone) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  for (const std::size_t rows : {1u, 2u, 3u, 4u, 5u, 7u, 8u, 9u}) {
    for (const std::size_t count : {16u, 48u, 64u, 80u, 512u}) {
      const std::size_t stride = count + 16;
      std::vector<float> scores(rows * stride);
      for (float& score : scores) score = normal(random) * 4.0f;
      std::vector<float> alone = scores;
      for (const KernelTable* table : available_kernels()) {
        std::vector<float> together = scores;
        alone = scores;
        std::vector<SoftmaxState> states(rows);
        table->softmax_rows(together.data(), stride, rows, count, states.data());
        for (std::size_t row = 0; row < rows; ++row) {
          SoftmaxState state{};
          available_kernels().back()->softmax_rows(&alone[row * stride], stride, 1, count, &state);
          EXPECT_EQ(state.max, states[row].max);
          EXPECT_EQ(state.sum, states[row].sum);
        }
        EXPECT_EQ(0, std::memcmp(together.data(), alone.data(), alone.size() * sizeof(float))) << table->name;
      }
    }
  }
}

// One tile x[rows, lanes] and what to multiply it with, all small whole numbers: every sum is exact in any order.
class WholeNumberTile {
 public:
  WholeNumberTile(std::size_t vectors, std::size_t rows, std::size_t lanes)
      : vectors_(vectors), rows_(rows), lanes_(lanes), random_(static_cast<std::uint32_t>(vectors * 7 + rows + lanes)) {
    fill(a_, vectors * rows);
    x_.resize(rows * lanes);
    for (HalfBits& value : x_) value = float_to_half(static_cast<float>(digit_(random_)));
    // Blocks lie apart and in any order; what no row or lane of the tile stands for is NaN.
    row_blocks_.assign((rows + 15) / 16, std::vector<HalfBits>(16 * lanes, 0x7E00));
    lane_blocks_.assign(lanes / 16, std::vector<HalfBits>(16 * rows, 0x7E00));
    for (std::size_t r = 0; r < rows; ++r) {
      for (std::size_t l = 0; l < lanes; ++l) {
        row_blocks_[r / 16][r % 16 * lanes + l] = lane_blocks_[l / 16][r * 16 + l % 16] = x_[r * lanes + l];
      }
    }
    for (const auto& block : row_blocks_) row_pointers_.push_back(block.data());
    for (const auto& block : lane_blocks_) lane_pointers_.push_back(block.data());
  }

  std::vector<float> accumulate(const KernelTable& table, bool from_lanes, bool adds) const {
    std::vector<float> out(vectors_ * lanes_, kOld), panel(kPanelLanes * rows_);
    std::vector<float*> out_pointers;
    for (std::size_t i = 0; i < vectors_; ++i) out_pointers.push_back(&out[i * lanes_]);
    const HalfBits* const* ahead = adds ? lane_pointers_.data() : nullptr;  // fetched, or not: the sum is the same
    const Accumulation sum{a_.data(), rows_, vectors_, adds, out_pointers.data(), panel.data(), ahead};
    if (from_lanes) {
      table.accumulate_half_lanes(lane_pointers_.data(), rows_, lanes_, sum);
    } else {
      table.accumulate_half_rows(row_pointers_.data(), rows_, lanes_, sum);
    }
    return out;
  }

  std::vector<float> expected(bool adds) const {
    std::vector<float> out;
    for (std::size_t i = 0; i < vectors_; ++i) {
      for (std::size_t l = 0; l < lanes_; ++l) {
        float sum = 0.0f;
        for (std::size_t r = 0; r < rows_; ++r) sum += a_[i * rows_ + r] * half_to_float(x_[r * lanes_ + l]);
        out.push_back((adds ? kOld : 0.0f) + sum);
      }
    }
    return out;
  }

 private:
  static constexpr float kOld = 2.0f;

  void fill(std::vector<float>& values, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) values.push_back(static_cast<float>(digit_(random_)));
  }

  std::size_t vectors_, rows_, lanes_;
  std::mt19937 random_;
  std::uniform_int_distribution<int> digit_{-9, 9};
  std::vector<float> a_;
  std::vector<HalfBits> x_;
  std::vector<std::vector<HalfBits>> row_blocks_, lane_blocks_;
  std::vector<const HalfBits*> row_pointers_, lane_pointers_;
};

class Accumulate : public ::testing::TestWithParam<std::size_t> {};

TEST_P(Accumulate, HalfRowsAndHalfLanes_GiveTheExactSum) {
  for (const std::size_t rows : {16u, 48u, 128u}) {
    for (const std::size_t lanes : {16u, 80u, 128u, 192u}) {
      const WholeNumberTile tile(GetParam(), rows, lanes);
      for (const bool adds : {false, true}) {
        const std::vector<float> expected = tile.expected(adds);
        for (const KernelTable* table : available_kernels()) {
          EXPECT_EQ(tile.accumulate(*table, false, adds), expected) << table->name << " rows " << rows << "x" << lanes;
          EXPECT_EQ(tile.accumulate(*table, true, adds), expected) << table->name << " lanes " << rows << "x" << lanes;
        }
      }
    }
  }
}

TEST_P(Accumulate, HalfRowsOfAnyNumber_GiveTheExactSum) {
  for (std::size_t rows = 1; rows <= 33; ++rows) {
    for (const std::size_t lanes : {16u, 48u, 80u, 96u, 192u, 256u}) {
      const WholeNumberTile tile(GetParam(), rows, lanes);
      const bool adds = rows % 2 == 0;
      const std::vector<float> expected = tile.expected(adds);
      for (const KernelTable* table : available_kernels()) {
        EXPECT_EQ(tile.accumulate(*table, false, adds), expected) << table->name << " rows " << rows << "x" << lanes;
      }
    }
  }
}

TEST(RotateLanes, EveryLane_GetsTheBitsOfRotatedRows) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  for (const std::size_t dim : {16u, 32u, 48u, 64u, 80u, 96u, 128u, 192u, 256u, 576u, 1024u}) {
    std::vector<float> rows(16 * dim);
    for (float& value : rows) value = normal(random);
    for (std::size_t i = 0; i < rows.size(); i += 11) rows[i] = i % 2 == 0 ? 0.0f : -0.0f;
    std::vector<float> expected = rows;
    available_kernels()[0]->rotate(expected.data(), 16, dim);
    for (const KernelTable* table : available_kernels()) {
      std::vector<float> side_by_side(rows.size()), out(dim * 21, 7.0f);
      table->transpose(rows.data(), 16, dim, dim, side_by_side.data(), 16);
      table->rotate_lanes(side_by_side.data(), dim, out.data(), 21);
      for (std::size_t channel = 0; channel < dim; ++channel) {
        for (std::size_t row = 0; row < 21; ++row) {
          const float wanted = row < 16 ? expected[row * dim + channel] : 7.0f;
          ASSERT_EQ(0, std::memcmp(&wanted, &out[channel * 21 + row], sizeof wanted))
              << table->name << " dim " << dim << " channel " << channel << " row " << row;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Vectors, Accumulate, ::testing::Values(1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 64));

}  // namespace
}  // namespace kvarn
