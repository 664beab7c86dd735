// What a long context takes with everything that belongs to it: records, exact rows of sink and tail, queries
// remembered, which token is where, descriptions, and what lies unused between them. Shapes are those of models;
// content is random.
#include <gtest/gtest.h>

#include <cstdio>
#include <ostream>

#include "synthetic_cache.hpp"

namespace kvarn {
namespace {

struct SizeCase {
  const char* model;  // whose layers these are
  SyntheticShape shape;
  double most_bits;  // a value
};

void PrintTo(const SizeCase& of, std::ostream* out) { *out << of.model; }

class SizeOfContext : public ::testing::TestWithParam<SizeCase> {};

std::uint64_t session_bytes(SyntheticCache& cache) {
  const SessionPart part = cache.part();
  const ByteSink sink{nullptr, [](void*, const std::uint8_t*, std::size_t) { return true; }};
  const auto sent = send_session({{&part, 1}, {}, {}}, sink);
  EXPECT_TRUE(sent.ok());
  return sent.ok() ? sent.value() : 0;
}

// The first tile is in the sink and the last two are in the tail: no more can be exact.
TEST_P(SizeOfContext, At32KTokensAnd4Bits_StaysBelowTheBound) {
  CacheConfig config;
  ASSERT_EQ(apply_preset("k4v4", config), Status::kOk);
  SyntheticCache cache(config, GetParam().shape, 256, 1);
  const CacheAccount account = cache.cache().account();
  const SyntheticShape& shape = GetParam().shape;
  const double values = 32768.0 * 2.0 * shape.layers * shape.kv_heads * shape.dim;
  const double memory_bits = 8.0 * static_cast<double>(account.held_bytes() + account.map_bytes) / values;
  const double file_bits = 8.0 * static_cast<double>(session_bytes(cache)) / values;
  std::printf("%s: %.3f bits a value in memory (queries %.3f, map %.3f, slack %.3f), %.3f in a session\n",
              GetParam().model, memory_bits, 8.0 * static_cast<double>(account.moment_bytes) / values,
              8.0 * static_cast<double>(account.map_bytes) / values,
              8.0 * static_cast<double>(account.slack_bytes) / values, file_bits);
  EXPECT_LE(memory_bits, GetParam().most_bits);
  EXPECT_LE(file_bits, GetParam().most_bits);
  // Exact rows alone are 16 bits of three tiles in 256, codes 4 bits of the others.
  EXPECT_GT(memory_bits, (3 * 16.0 + 253 * 4.0) / 256);
}

INSTANTIATE_TEST_SUITE_P(Models, SizeOfContext,
                         ::testing::Values(SizeCase{"SmolLM2 135M", {30, 3, 64, 9}, 4.75},
                                           SizeCase{"four layers of Llama 3 8B", {4, 8, 128, 32}, 4.55},
                                           SizeCase{"layers without a window of Gemma 3 270M", {3, 1, 256, 4}, 4.55}),
                         [](const ::testing::TestParamInfo<SizeCase>& info) {
                           return "Dim" + std::to_string(info.param.shape.dim);
                         });

}  // namespace
}  // namespace kvarn
