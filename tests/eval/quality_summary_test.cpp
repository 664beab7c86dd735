// Figures from stored scores.
#include "quality_summary.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace kvarn::bench {
namespace {

// Positions 0, 2, 4, ... with the position as the divergence; every other one has the same top token.
Json chunk(std::size_t count) {
  Json result;
  for (std::size_t index = 0; index < count; ++index) {
    result["positions"].push_back(2 * index);
    result["kld"].push_back(static_cast<double>(2 * index));
    result["loss"].push_back(2.5);
    result["reference_loss"].push_back(2.0);
    result["same_top"].push_back(index % 2);
  }
  return result;
}

TEST(QualitySummary, ScoresCountFromTheFirstPositionOn) {
  const std::vector<Json> chunks = {chunk(100), chunk(100)};
  const Json summary = score_summary(chunks, 100, {});
  EXPECT_EQ(summary.at("positions"), 100);
  EXPECT_DOUBLE_EQ(summary.at("mean_kld"), 149.0);
  EXPECT_DOUBLE_EQ(summary.at("median_kld"), 149.0);
  EXPECT_DOUBLE_EQ(summary.at("max_kld"), 198.0);
  EXPECT_DOUBLE_EQ(summary.at("same_top"), 50.0);
  EXPECT_NEAR(summary.at("perplexity_ratio"), std::exp(0.5), 1e-12);
  EXPECT_LE(summary.at("mean_kld_low"), 149.0);
  EXPECT_GE(summary.at("mean_kld_high"), 149.0);
}

TEST(QualitySummary, RatiosAreOfThePositionsThatCount) {
  const std::vector<Json> chunks = {chunk(100), chunk(100)};
  std::vector<Json> other = chunks;
  for (Json& part : other) {
    for (Json& kld : part.at("kld")) kld = 4.0 * kld.get<double>();
    part.at("kld")[0] = 1e9;  // before the first position that counts
  }
  const Json ratios = score_ratios(chunks, other, 100, {});
  for (const char* name : {"mean_kld", "mean_kld_low", "mean_kld_high", "median_kld", "kld_99_9", "kld_99_9_high"}) {
    EXPECT_DOUBLE_EQ(ratios.at(name), 0.25) << name;
  }
}

TEST(QualitySummary, NoPositionLeft_IsEmpty) {
  EXPECT_TRUE(score_summary(std::vector<Json>{chunk(4)}, 100, {}).empty());
  EXPECT_TRUE(score_ratios(std::vector<Json>{chunk(4)}, std::vector<Json>{chunk(4)}, 100, {}).empty());
}

TEST(QualitySummary, Curves_AverageRanges) {
  const Json curve = kld_by_position(std::vector<Json>{chunk(8)}, 6);
  ASSERT_EQ(curve.size(), 3u);
  EXPECT_EQ(curve[1].at("first"), 6);
  EXPECT_DOUBLE_EQ(curve[0].at("mean_kld"), 2.0);   // 0, 2, 4
  EXPECT_DOUBLE_EQ(curve[2].at("mean_kld"), 13.0);  // 12, 14
  const Json steps = drift(chunk(5), 2);
  ASSERT_EQ(steps.size(), 3u);
  EXPECT_EQ(steps[2].at("last"), 5);
  EXPECT_DOUBLE_EQ(steps[2].at("mean_kld"), 8.0);
  EXPECT_DOUBLE_EQ(steps[0].at("same_top"), 50.0);
}

// 1,000 values of two bytes each; half of them sealed at 4 bits: 250 bytes of records.
TEST(QualitySummary, Bits_CountAllBytes) {
  const Json account = {{"cache_bytes", 1250}, {"record_bytes", 250}, {"f16_bytes", 2000}};
  EXPECT_DOUBLE_EQ(full_bits_per_value(account), 10.0);
  EXPECT_DOUBLE_EQ(sealed_share(account, 4.0), 0.5);
}

}  // namespace
}  // namespace kvarn::bench
