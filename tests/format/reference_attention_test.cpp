// Identities of attention that need no model, on the dense reference: what it must be for kernels to be tested against
// it.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "reference/attention.hpp"
#include "reference/record.hpp"
#include "reference/rotation.hpp"
#include "tile_samples.hpp"

namespace kvarn::reference {
namespace {

using testing::Random;

constexpr float kHiddenMask = -std::numeric_limits<float>::infinity();
constexpr double kTolerance = 1e-12;  // double sums of at most 64 terms of order one

// A problem that owns its arrays.
struct Problem {
  DenseAttention shape;
  std::vector<float> q, k, v, mask, sinks;

  Problem(std::uint32_t heads, std::uint32_t kv_heads, std::uint32_t queries, std::uint32_t keys, std::uint64_t seed)
      : shape{.heads = heads, .kv_heads = kv_heads, .dim_k = 32, .dim_v = 48, .queries = queries, .keys = keys},
        q(filled(queries * heads * 32, seed)),
        k(filled(keys * kv_heads * 32, seed + 1)),
        v(filled(keys * kv_heads * 48, seed + 2)),
        mask(queries * keys, 0.0f) {
    shape.scale = 1.0 / std::sqrt(32.0);
  }

  static std::vector<float> filled(std::size_t count, std::uint64_t seed) {
    Random random(seed);
    std::vector<float> values(count);
    for (float& value : values) value = random.near_normal();
    return values;
  }

  std::vector<double> run() const {
    DenseAttention problem = shape;
    problem.q = q.data();
    problem.k = k.data();
    problem.v = v.data();
    problem.mask = mask.data();
    problem.sinks = sinks.empty() ? nullptr : sinks.data();
    std::vector<double> out(std::size_t{shape.queries} * shape.heads * shape.dim_v, -1.0);
    attend(problem, out.data());
    return out;
  }
};

void expect_near(const std::vector<double>& a, const std::vector<double>& b, double tolerance = kTolerance) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], tolerance) << i;
}

TEST(ReferenceAttention, OneToken_GivesItsValue) {
  const Problem problem(4, 2, 3, 1, 1);
  const std::vector<double> out = problem.run();
  for (std::uint32_t query = 0; query < 3; ++query) {
    for (std::uint32_t head = 0; head < 4; ++head) {
      for (std::uint32_t channel = 0; channel < 48; ++channel) {
        EXPECT_NEAR(out[(query * 4 + head) * 48 + channel], problem.v[head / 2 * 48 + channel], kTolerance);
      }
    }
  }
}

TEST(ReferenceAttention, EqualValues_GiveThatValue) {
  Problem problem(2, 1, 2, 20, 2);
  for (std::size_t i = 48; i < problem.v.size(); ++i) problem.v[i] = problem.v[i - 48];
  const std::vector<double> out = problem.run();
  for (std::size_t i = 0; i < out.size(); ++i) EXPECT_NEAR(out[i], problem.v[i % 48], kTolerance);
}

TEST(ReferenceAttention, HiddenKeysOfNaN_ChangeNothing) {
  Problem small(2, 2, 3, 10, 3);
  Problem large = small;
  large.shape.keys = 14;
  large.k.resize(14 * 2 * 32, std::numeric_limits<float>::quiet_NaN());
  large.v.resize(14 * 2 * 48, std::numeric_limits<float>::quiet_NaN());
  large.mask.assign(3 * 14, 0.0f);
  for (std::uint32_t query = 0; query < 3; ++query) {
    for (std::uint32_t key = 10; key < 14; ++key) large.mask[query * 14 + key] = kHiddenMask;
  }
  EXPECT_EQ(large.run(), small.run());
}

TEST(ReferenceAttention, QueryThatSeesNothing_GetsZeros) {
  Problem problem(2, 1, 2, 5, 4);
  for (std::uint32_t key = 0; key < 5; ++key) problem.mask[key] = kHiddenMask;
  for (const std::vector<float>& sinks : {std::vector<float>{}, std::vector<float>{0.5f, -0.5f}}) {
    problem.sinks = sinks;
    const std::vector<double> out = problem.run();
    for (std::size_t i = 0; i < 2 * 48; ++i) EXPECT_EQ(out[i], 0.0);
    EXPECT_NE(out[2 * 48], 0.0);
  }
}

TEST(ReferenceAttention, OrderOfTheKeys_IsIrrelevant) {
  const Problem problem(2, 1, 2, 16, 5);
  Problem reversed = problem;
  for (std::uint32_t key = 0; key < 16; ++key) {
    for (std::uint32_t i = 0; i < 32; ++i) reversed.k[key * 32 + i] = problem.k[(15 - key) * 32 + i];
    for (std::uint32_t i = 0; i < 48; ++i) reversed.v[key * 48 + i] = problem.v[(15 - key) * 48 + i];
  }
  expect_near(reversed.run(), problem.run());
}

TEST(ReferenceAttention, GroupedQueries_EqualRepeatedHeads) {
  const Problem grouped(6, 2, 2, 9, 6);
  Problem repeated(6, 6, 2, 9, 6);
  for (std::uint32_t key = 0; key < 9; ++key) {
    for (std::uint32_t head = 0; head < 6; ++head) {
      const std::uint32_t source = key * 2 + head / 3;
      for (std::uint32_t i = 0; i < 32; ++i) repeated.k[(key * 6 + head) * 32 + i] = grouped.k[source * 32 + i];
      for (std::uint32_t i = 0; i < 48; ++i) repeated.v[(key * 6 + head) * 48 + i] = grouped.v[source * 48 + i];
    }
  }
  EXPECT_EQ(repeated.run(), grouped.run());
}

// out = (e^a * out_a + e^b * out_b) / (e^a + e^b) with the log-sum-exp of each part. A sink s alone tells it: a part's
// output with the sink is its output without, times e^a / (e^a + e^s).
TEST(ReferenceAttention, PartsMergedByLogSumExp_EqualTheWhole) {
  const Problem whole(1, 1, 1, 24, 7);
  Problem parts[2] = {whole, whole};
  double mass[2];
  std::vector<double> outs[2];
  for (int part = 0; part < 2; ++part) {
    for (std::uint32_t key = 0; key < 24; ++key) {
      if ((key < 7) != (part == 0)) parts[part].mask[key] = kHiddenMask;
    }
    outs[part] = parts[part].run();
    parts[part].sinks = {0.0f};
    const double share = parts[part].run()[0] / outs[part][0];
    mass[part] = share / (1.0 - share);
  }
  std::vector<double> merged(48);
  for (std::size_t i = 0; i < 48; ++i) {
    merged[i] = (mass[0] * outs[0][i] + mass[1] * outs[1][i]) / (mass[0] + mass[1]);
  }
  expect_near(merged, whole.run(), 1e-10);  // the shares are differences of rounded numbers
}

TEST(ReferenceAttention, Sink_EqualsAKeyWithoutAValue) {
  Problem sink(1, 1, 1, 6, 8);
  sink.sinks = {0.75f};
  Problem key = sink;
  key.sinks.clear();
  key.shape.keys = 7;
  key.mask.assign(7, 0.0f);
  key.k.resize(7 * 32, 0.0f);
  key.v.resize(7 * 48, 0.0f);
  key.mask[6] = 0.75f;  // score 0 plus the mask
  expect_near(key.run(), sink.run());
}

TEST(ReferenceAttention, SoftCap_BoundsScoresAndALargeOneChangesNothing) {
  Problem problem(1, 1, 1, 8, 9);
  const std::vector<double> plain = problem.run();
  problem.shape.soft_cap = 1e9;
  expect_near(problem.run(), plain, 1e-9);
  problem.shape.soft_cap = 1e-9;  // all scores alike: the mean of the values
  std::vector<double> mean(48, 0.0);
  for (std::size_t i = 0; i < problem.v.size(); ++i) mean[i % 48] += problem.v[i] / 8.0;
  expect_near(problem.run(), mean, 1e-8);
}

TEST(ReferenceAttention, AlibiSlopes_AreTheGeometricSequence) {
  EXPECT_EQ(alibi_slope(3, 8, 0.0), 1.0);
  for (std::uint32_t head = 0; head < 8; ++head) EXPECT_DOUBLE_EQ(alibi_slope(head, 8, 8.0), std::exp2(-1.0 - head));
  EXPECT_DOUBLE_EQ(alibi_slope(8, 12, 8.0), std::exp2(-0.5));  // twelve heads: the rest fills in between
  EXPECT_DOUBLE_EQ(alibi_slope(11, 12, 8.0), std::exp2(-3.5));
}

TEST(ReferenceAttention, Alibi_MultipliesTheMask) {
  Problem biased(2, 1, 1, 5, 10);
  biased.shape.max_bias = 8.0;  // slopes 2^-4 and 2^-8
  for (std::uint32_t key = 0; key < 5; ++key) biased.mask[key] = -static_cast<float>(key);
  Problem masked = biased;
  masked.shape.max_bias = 0.0;
  for (float& value : masked.mask) value /= 16.0f;
  const std::vector<double> biased_out = biased.run();
  const std::vector<double> masked_out = masked.run();
  for (std::size_t i = 0; i < 48; ++i) EXPECT_NEAR(biased_out[i], masked_out[i], kTolerance);
}

// The sealed way (rotated query against rotated keys, weighted rotated values rotated back) is attention over decoded
// rows.
TEST(ReferenceAttention, RotatedTile_EqualsAttentionOverItsDecodedRows) {
  Problem plain(1, 1, 1, 32, 11);
  const TileSpec key_spec{Axis::kKey, 32, 32, 4};
  const TileSpec value_spec{Axis::kValue, 32, 48, 4};
  const auto keys = encode(key_spec, Level::kScaled, testing::normal_rows(32, 32, 1.0f, 12).pointers()).value();
  const auto values = encode(value_spec, Level::kScaled, testing::normal_rows(32, 48, 1.0f, 13).pointers()).value();
  plain.k = decode_rows(key_spec, keys);
  plain.v = decode_rows(value_spec, values);
  Problem rotated = plain;
  rotate(rotated.q);
  const FloatTile key_tile = decode_rotated(shape_of(key_spec), keys);
  for (std::uint32_t key = 0; key < 32; ++key) {
    for (std::uint32_t i = 0; i < 32; ++i) rotated.k[key * 32 + i] = key_tile.at(i, key);
  }
  rotated.v = decode_rotated(shape_of(value_spec), values).values;
  const std::vector<double> rotated_out = rotated.run();
  std::vector<float> out(rotated_out.begin(), rotated_out.end());
  rotate(out);
  expect_near({out.begin(), out.end()}, plain.run(), 1e-5);  // single-precision rotations of values of order one
}

}  // namespace
}  // namespace kvarn::reference
