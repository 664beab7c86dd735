// Divergence of two rows of logits against sums that are written out.
#include "kl_divergence.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace kvarn::bench {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

TEST(KlDivergence, TwoTokens_FollowTheDefinition) {
  const std::vector<float> reference = {std::log(0.75F), std::log(0.25F)};
  const std::vector<float> other = {std::log(0.5F), std::log(0.5F)};
  const PositionScore score = compare_logits(reference, other, 1);
  EXPECT_NEAR(score.kld, 0.75 * std::log(1.5) + 0.25 * std::log(0.5), 1e-7);
  EXPECT_NEAR(score.reference_loss, -std::log(0.25), 1e-7);
  EXPECT_NEAR(score.loss, -std::log(0.5), 1e-7);
  EXPECT_TRUE(score.same_top);  // of equals the first one counts
  EXPECT_FALSE(compare_logits(reference, std::vector<float>{0.0F, 1.0F}, 1).same_top);
}

TEST(KlDivergence, ShiftOfAllLogits_ChangesNothing) {
  const std::vector<float> reference = {1.0F, -2.0F, 0.5F};
  const std::vector<float> shifted = {1001.0F, 998.0F, 1000.5F};
  const PositionScore score = compare_logits(reference, shifted, 2);
  EXPECT_NEAR(score.kld, 0.0, 1e-12);
  EXPECT_NEAR(score.loss, score.reference_loss, 1e-12);
  EXPECT_NEAR(log_sum_exp(shifted) - log_sum_exp(reference), 1000.0, 1e-9);
}

TEST(KlDivergence, Itself_IsZero) {
  const std::vector<float> logits = {3.0F, 3.0F, -1e30F, 80.0F};
  EXPECT_EQ(compare_logits(logits, logits, kNoTarget).kld, 0.0);
  EXPECT_EQ(compare_logits(logits, logits, kNoTarget).loss, 0.0);
  EXPECT_TRUE(compare_logits(logits, logits, kNoTarget).same_top);
}

TEST(KlDivergence, TokensThatCannotCome_CountNothing) {
  const std::vector<float> reference = {0.0F, 0.0F, kMinusInfinity};
  const std::vector<float> other = {0.0F, 0.0F, -20.0F};
  EXPECT_NEAR(compare_logits(reference, other, 0).kld, std::log1p(std::exp(-20.0) / 2.0), 1e-12);
  EXPECT_NEAR(log_sum_exp(reference), std::log(2.0), 1e-12);
}

// Long rows with small differences: what single precision sums would lose.
TEST(KlDivergence, LargeVocabulary_KeepsSmallDivergences) {
  constexpr std::size_t kTokens = 200'000;
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0.0F, 1.0F);
  std::vector<float> reference(kTokens);
  std::vector<float> other(kTokens);
  long double reference_sum = 0.0L;
  long double other_sum = 0.0L;
  for (std::size_t token = 0; token < kTokens; ++token) {
    reference[token] = normal(random);
    other[token] = reference[token] + 0.01F * normal(random);
    reference_sum += std::exp(static_cast<long double>(reference[token]));
    other_sum += std::exp(static_cast<long double>(other[token]));
  }
  long double expected = 0.0L;
  for (std::size_t token = 0; token < kTokens; ++token) {
    const long double log_reference = reference[token] - std::log(reference_sum);
    expected += std::exp(log_reference) * (log_reference - (other[token] - std::log(other_sum)));
  }
  // About 5e-5 in all; exp() of single precision is off by 1e-7 of that.
  EXPECT_NEAR(compare_logits(reference, other, kNoTarget).kld, static_cast<double>(expected), 1e-9);
}

TEST(KlDivergence, Rows_DoNotDependOnThreads) {
  constexpr std::size_t kRows = 13;
  constexpr std::size_t kTokens = 50;
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0.0F, 2.0F);
  std::vector<float> reference(kRows * kTokens);
  std::vector<float> other(kRows * kTokens);
  for (std::size_t index = 0; index < reference.size(); ++index) {
    reference[index] = normal(random);
    other[index] = normal(random);
  }
  const std::vector<std::int32_t> targets(kRows, 4);
  std::vector<PositionScore> alone(kRows);
  compare_rows({reference.data(), kTokens}, {other.data(), kTokens}, targets, 1, alone);
  for (const int threads : {0, 2, 3, 40}) {
    std::vector<PositionScore> shared(kRows);
    compare_rows({reference.data(), kTokens}, {other.data(), kTokens}, targets, threads, shared);
    for (std::size_t row = 0; row < kRows; ++row) {
      EXPECT_EQ(alone[row].kld, shared[row].kld);
      EXPECT_EQ(alone[row].loss, shared[row].loss);
      EXPECT_GT(alone[row].kld, 0.0);
    }
  }
}

}  // namespace
}  // namespace kvarn::bench
