// Attention over tiles against dense attention in double precision, on every instruction set and any number of workers.
#include <gtest/gtest.h>

#include <cstring>

#include "kernels/kernel_table.hpp"
#include "short_lived_team.hpp"
#include "tiled_problem.hpp"

namespace kvarn {
namespace {

std::vector<float> attend_to(const TiledProblem& problem, const ProblemSpec& spec, const Runner& runner,
                             AttentionScratch& scratch) {
  std::vector<float> out;
  const AttentionJob job = problem.job(out);
  attend(spec.shape, problem.params(), {&job, 1}, runner, scratch);
  return out;
}

double mean_square_distance(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return a.empty() ? 0.0 : sum / static_cast<double>(a.size());
}

// Exact tiles: every output within the float sums' tolerance. Sealed tiles: what the integer kernels add is at most a
// twentieth of what sealing did, as a mean square; on every instruction set the same bits.
void expect_reference(const ProblemSpec& spec) {
  const TiledProblem problem(spec);
  const std::vector<double> expected = problem.expected();
  const double tolerance = problem.tolerance();
  const double sealing = mean_square_distance(expected, problem.before_sealing());
  AttentionScratch scratch;
  std::vector<float> first;
  for (const KernelTable* table : available_kernels()) {
    ASSERT_TRUE(select_kernels(table->name));
    const std::vector<float> out = attend_to(problem, spec, Runner{}, scratch);
    const double added = mean_square_distance(std::vector<double>(out.begin(), out.end()), expected);
    ASSERT_LE(added, 0.05 * sealing + tolerance * tolerance)
        << table->name << ": " << added / sealing << " of what sealing changed, heads " << spec.shape.heads << " of "
        << spec.shape.kv_heads << ", dim " << spec.shape.dim_k << ", bits " << spec.shape.k_bits << ", queries "
        << spec.queries;
    for (std::size_t i = 0; spec.kind == TileKind::kExact && i < out.size(); ++i) {
      ASSERT_NEAR(out[i], expected[i], tolerance)
          << table->name << " query " << i / spec.shape.dim_v / spec.shape.heads << " head "
          << i / spec.shape.dim_v % spec.shape.heads << " channel " << i % spec.shape.dim_v;
    }
    if (first.empty()) first = out;
    ASSERT_EQ(0, std::memcmp(first.data(), out.data(), out.size() * sizeof(float))) << table->name;
  }
  ASSERT_TRUE(select_kernels(available_kernels()[0]->name));
}

ProblemSpec with_seed(ProblemSpec spec, std::uint32_t seed) {
  spec.seed = seed;
  spec.params.scale = 1.0f / std::sqrt(static_cast<float>(spec.shape.dim_k));
  return spec;
}

TEST(Attend, EveryDimension_MatchesTheReference) {
  std::uint32_t seed = 1;
  for (const std::uint32_t dim_k : {16u, 48u, 64u, 80u, 96u, 128u, 192u, 256u}) {
    for (const std::uint32_t dim_v : {dim_k, dim_k == 192u ? 128u : dim_k}) {
      for (const TileKind kind : {TileKind::kSealed, TileKind::kExact, TileKind::kMixed}) {
        ProblemSpec spec{.queries = 3, .tiles = 4, .kind = kind};
        spec.shape.dim_k = dim_k;
        spec.shape.dim_v = dim_v;
        expect_reference(with_seed(spec, seed++));
      }
    }
  }
}

TEST(Attend, EveryGroupAndQueryCount_MatchesTheReference) {
  std::uint32_t seed = 100;
  for (const std::uint32_t group : {1u, 2u, 3u, 4u, 5u, 7u, 8u, 11u, 16u}) {
    for (const std::uint32_t queries : {1u, 2u, 5u, 33u, 130u}) {
      ProblemSpec spec{.queries = queries, .tiles = 5};
      spec.shape.kv_heads = 2;
      spec.shape.heads = 2 * group;
      spec.shape.dim_k = spec.shape.dim_v = 48;
      expect_reference(with_seed(spec, seed++));
    }
  }
}

TEST(Attend, ExactTilesOfEveryTailLength_MatchTheReference) {
  std::uint32_t seed = 1000;
  for (std::uint32_t tail = 1; tail <= 16; ++tail) {
    for (const std::uint32_t dim : {16u, 48u, 80u, 96u, 192u}) {
      for (const std::uint32_t queries : {1u, 3u, 40u}) {
        ProblemSpec spec{.queries = queries, .tiles = 3, .kind = TileKind::kExact, .last_tile_rows = 16 + tail};
        spec.shape.dim_k = spec.shape.dim_v = dim;
        spec.shape.tile_tokens = 48;
        spec.mask = tail % 2 == 0 ? MaskKind::kCausal : MaskKind::kAll;
        spec.holes = dim % 32 == 0 ? HoleKind::kOne : HoleKind::kNone;
        expect_reference(with_seed(spec, seed++));
      }
    }
  }
}

TEST(Attend, NullBlocksAndHoles_MatchTheReference) {
  std::uint32_t seed = 2000;
  for (const MaskKind mask : {MaskKind::kAll, MaskKind::kCausal, MaskKind::kRandom, MaskKind::kInterleaved}) {
    for (const bool has_null_blocks : {false, true}) {
      for (const HoleKind holes : {HoleKind::kNone, HoleKind::kMany}) {
        for (const std::uint32_t dim : {16u, 80u, 128u}) {
          for (const std::uint32_t queries : {1u, 6u, 50u}) {
            ProblemSpec spec{.queries = queries, .tiles = 4, .kind = TileKind::kExact, .mask = mask};
            spec.has_null_blocks = has_null_blocks;
            spec.holes = holes;
            spec.shape.dim_k = spec.shape.dim_v = dim;
            spec.shape.tile_tokens = 64;
            expect_reference(with_seed(spec, seed++));
          }
        }
      }
    }
  }
}

// Each query sees a window of the tile that starts and ends within blocks.
TEST(Attend, SlidingWindow_MatchesTheReference) {
  std::uint32_t seed = 3000;
  for (const TileKind kind : {TileKind::kExact, TileKind::kMixed}) {
    for (const std::uint32_t queries : {1u, 9u, 70u}) {
      for (const std::uint32_t tokens : {32u, 128u}) {
        ProblemSpec spec{.queries = queries, .tiles = 5, .kind = kind, .mask = MaskKind::kWindow};
        spec.shape.tile_tokens = tokens;
        expect_reference(with_seed(spec, seed++));
      }
    }
  }
}

TEST(Attend, EveryCodeWidth_MatchesTheReference) {
  std::uint32_t seed = 200;
  for (const std::uint32_t bits : {8u, 6u, 5u, 4u, 3u, 2u}) {
    for (const std::uint32_t queries : {1u, 20u}) {
      for (const std::uint32_t tokens : {16u, 48u, 128u, 256u}) {
        for (const RecordVersion version : {RecordVersion::kHalves, RecordVersion::kBytes}) {
          ProblemSpec spec{.queries = queries, .tiles = 2, .kind = TileKind::kSealed};
          spec.shape.k_bits = bits;
          spec.shape.v_bits = bits == 8 ? 3 : bits;
          spec.shape.version = version;
          spec.shape.tile_tokens = tokens;
          spec.shape.dim_v = 80;
          expect_reference(with_seed(spec, seed++));
        }
      }
    }
  }
}

TEST(Attend, EveryMask_MatchesTheReference) {
  std::uint32_t seed = 300;
  for (const MaskKind mask : {MaskKind::kNone, MaskKind::kAll, MaskKind::kCausal, MaskKind::kRandom,
                              MaskKind::kInterleaved, MaskKind::kWindow}) {
    for (const TileKind kind : {TileKind::kSealed, TileKind::kExact, TileKind::kMixed}) {
      for (const std::uint32_t queries : {1u, 4u, 70u}) {
        for (const std::uint32_t tiles : {0u, 1u, 2u, 9u}) {
          expect_reference(with_seed({.queries = queries, .tiles = tiles, .kind = kind, .mask = mask}, seed++));
        }
      }
    }
  }
}

TEST(Attend, BiasSoftCapAndSinks_MatchTheReference) {
  std::uint32_t seed = 400;
  for (const float max_bias : {0.0f, 8.0f}) {
    for (const float soft_cap : {0.0f, 5.0f}) {
      for (const bool has_sinks : {false, true}) {
        for (const std::uint32_t heads : {4u, 6u, 12u}) {
          for (const std::uint32_t queries : {1u, 9u}) {
            ProblemSpec spec{.queries = queries, .tiles = 6, .has_sinks = has_sinks};
            spec.shape.heads = heads;
            spec.params.max_bias = max_bias;
            spec.params.soft_cap = soft_cap;
            expect_reference(with_seed(spec, seed++));
          }
        }
      }
    }
  }
}

// Long enough for several spans of one job and for rounds of partial results.
TEST(Attend, AnyNumberOfWorkers_GivesTheSameBits) {
  for (const std::uint32_t queries : {1u, 7u, 100u}) {
    const ProblemSpec spec = with_seed({.queries = queries, .tiles = 70}, 500 + queries);
    const TiledProblem problem(spec);
    AttentionScratch scratch;
    const std::vector<float> alone = attend_to(problem, spec, Runner{}, scratch);
    for (const unsigned workers : {1u, 2u, 3u}) {
      ShortLivedTeam threads{workers};
      const std::vector<float> team = attend_to(problem, spec, threads.runner(), scratch);
      EXPECT_EQ(0, std::memcmp(alone.data(), team.data(), alone.size() * sizeof(float))) << workers << " workers";
    }
  }
}

// Partial results that are too many to hold at once are merged in rounds.
TEST(Attend, ManyLargePartialResults_GiveTheSameBitsAsOneQueryAlone) {
  ProblemSpec spec{.queries = 32, .tiles = 11, .kind = TileKind::kExact};
  spec.shape = {.heads = 8, .kv_heads = 4, .dim_k = 16, .dim_v = 256, .tile_tokens = 256, .k_bits = 4, .v_bits = 4};
  spec = with_seed(spec, 550);
  const TiledProblem problem(spec);
  AttentionScratch scratch;
  std::vector<float> all;
  const AttentionJob job = problem.job(all);
  ShortLivedTeam threads{2};
  attend(spec.shape, problem.params(), {&job, 1}, threads.runner(), scratch);
  std::vector<float> one(job.out_query_stride);
  AttentionJob last = job;
  last.queries = 1;
  last.visibility += 31 * job.tiles.size();
  last.mask += 31 * job.mask_stride;
  last.q += 31 * job.q_query_stride;
  last.out = one.data();
  attend(spec.shape, problem.params(), {&last, 1}, Runner{}, scratch);
  EXPECT_EQ(0, std::memcmp(one.data(), &all[31 * one.size()], one.size() * sizeof(float)));
}

TEST(Attend, AQueryAmongOthers_GivesTheSameBitsAsAlone) {
  for (const TileKind kind : {TileKind::kSealed, TileKind::kExact, TileKind::kMixed}) {
    const ProblemSpec spec = with_seed({.queries = 90, .tiles = 40, .kind = kind}, 600);
    const TiledProblem problem(spec);
    AttentionScratch scratch;
    std::vector<float> all;
    const AttentionJob job = problem.job(all);
    attend(spec.shape, problem.params(), {&job, 1}, Runner{}, scratch);
    for (const std::uint32_t query : {0u, 41u, 89u}) {
      std::vector<float> one(job.out_query_stride);
      AttentionJob single = job;
      single.queries = 1;
      single.visibility += query * job.tiles.size();
      single.mask += query * job.mask_stride;
      single.q += query * job.q_query_stride;
      single.out = one.data();
      attend(spec.shape, problem.params(), {&single, 1}, Runner{}, scratch);
      EXPECT_EQ(0, std::memcmp(one.data(), &all[query * one.size()], one.size() * sizeof(float))) << "query " << query;
    }
  }
}

TEST(Attend, SeveralJobs_GiveWhatEachGivesAlone) {
  std::vector<TiledProblem> problems;
  std::vector<ProblemSpec> specs;
  for (const auto& [queries, tiles] : {std::pair{1u, 40u}, {0u, 2u}, {3u, 0u}, {100u, 3u}, {2u, 18u}, {1u, 1u}}) {
    specs.push_back(with_seed({.queries = queries, .tiles = tiles}, 700 + queries));
    problems.emplace_back(specs.back());
  }
  std::vector<std::vector<float>> together(problems.size());
  std::vector<AttentionJob> jobs;
  for (std::size_t i = 0; i < problems.size(); ++i) jobs.push_back(problems[i].job(together[i]));
  AttentionScratch scratch;
  ShortLivedTeam threads{2};
  attend(specs[0].shape, problems[0].params(), jobs, threads.runner(), scratch);
  for (std::size_t i = 0; i < problems.size(); ++i) {
    EXPECT_EQ(together[i], attend_to(problems[i], specs[i], Runner{}, scratch)) << "job " << i;
  }
}

TEST(Attend, EqualValues_GiveThatValue) {
  for (const std::uint32_t queries : {1u, 40u}) {
    const ProblemSpec spec =
        with_seed({.queries = queries, .tiles = 6, .kind = TileKind::kExact, .has_equal_values = true}, 800);
    const TiledProblem problem(spec);
    AttentionScratch scratch;
    const std::vector<float> out = attend_to(problem, spec, Runner{}, scratch);
    for (std::size_t i = 0; i < out.size(); ++i) {
      const std::size_t head = i / spec.shape.dim_v % spec.shape.heads;
      const std::size_t column = head / 2 * spec.shape.dim_v + i % spec.shape.dim_v;
      ASSERT_NEAR(out[i], static_cast<float>(column % 13) - 6.0f, 1e-5f);
    }
  }
}

TEST(Attend, OneToken_GivesItsValueExactly) {
  const HalfBits value[] = {float_to_half(1.5f), float_to_half(-3.0e4f), float_to_half(6e-8f), 0};
  std::vector<HalfBits> k(16 * 16, 0x7E00), v(16 * 16, 0x7E00);
  for (std::size_t i = 0; i < 16; ++i) {
    k[i * 16] = float_to_half(static_cast<float>(i));  // channel i of token 0
    v[i] = value[i % 4];
  }
  const HalfBits* k_block = k.data();
  const HalfBits* v_block = v.data();
  const std::uint32_t cell = 0;
  const TileView view{.k = {.blocks = &k_block}, .v = {.blocks = &v_block}, .used_rows = 1, .cells = &cell};
  const Visibility all = Visibility::kAll;
  std::vector<float> q(16, 0.25f), out(16);
  const AttentionJob job{.tiles = {&view, 1}, .queries = 1, .visibility = &all, .q = q.data(), .out = out.data()};
  AttentionScratch scratch;
  attend({1, 1, 16, 16, 16, 4, 4}, {}, {&job, 1}, Runner{}, scratch);
  for (std::size_t i = 0; i < 16; ++i) EXPECT_EQ(out[i], half_to_float(value[i % 4]));
}

// Two sequences in one tile: what one of them holds, NaN included, is nothing to the other.
TEST(Attend, ForeignNanInTheSameTile_ChangesNothing) {
  constexpr std::uint32_t kDim = 16;
  std::vector<HalfBits> rows(16 * kDim);
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = float_to_half(static_cast<float>(i % 7));
  std::vector<std::uint32_t> cells(16);
  std::vector<HalfBits> mask(2 * 16, 0xFC00);
  for (std::uint32_t i = 0; i < 16; ++i) {
    cells[i] = i;
    mask[(i % 2) * 16 + i] = 0;  // even rows belong to query 0
  }
  std::vector<float> q(2 * kDim, 0.5f), clean(2 * kDim), poisoned(2 * kDim);
  const std::vector<Visibility> some(2, Visibility::kSome);
  const auto run = [&](std::vector<float>& out) {
    std::vector<HalfBits> keys(rows.size());
    for (std::size_t i = 0; i < rows.size(); ++i) keys[i % kDim * 16 + i / kDim] = rows[i];
    const HalfBits* k_block = keys.data();
    const HalfBits* v_block = rows.data();
    const TileView view{.k = {.blocks = &k_block}, .v = {.blocks = &v_block}, .used_rows = 16, .cells = cells.data()};
    const AttentionJob job{.tiles = {&view, 1},
                           .queries = 2,
                           .visibility = some.data(),
                           .mask = mask.data(),
                           .mask_stride = 16,
                           .q = q.data(),
                           .q_query_stride = kDim,
                           .out = out.data(),
                           .out_query_stride = kDim};
    AttentionScratch scratch;
    attend({1, 1, kDim, kDim, 16, 4, 4}, {}, {&job, 1}, Runner{}, scratch);
  };
  run(clean);
  rows[3 * kDim + 5] = 0x7E00;
  run(poisoned);
  for (std::size_t i = 0; i < kDim; ++i) EXPECT_EQ(clean[i], poisoned[i]);
  EXPECT_TRUE(std::isnan(poisoned[kDim + 5]));
}

}  // namespace
}  // namespace kvarn
