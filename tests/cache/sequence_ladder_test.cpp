// Old tiles of chosen sequences get fewer bits.
#include <gtest/gtest.h>

#include "sequence_model.hpp"

namespace kvarn {
namespace {

std::uint64_t taken(const SequenceCache& cache) {
  const SequencesAccount account = cache.account();
  return account.record_bytes + account.row_bytes + account.slack_bytes;
}

// Mean squared error of a layer's values against the rows that were written, over tokens [first, end).
double error_of(const SequenceModel& model, const SequenceCache& cache, SequenceId id, const Text& text,
                std::uint32_t first, std::uint32_t end) {
  const auto rows = model.read(cache, id, 1, Side::kValue);
  const std::uint32_t values = model.row_values(Side::kValue);
  double sum = 0;
  for (std::uint32_t rank = first; rank < end; ++rank) {
    const auto written = model.row(Side::kValue, 1, text[rank], rank);
    for (std::uint32_t at = 0; at < values; ++at) {
      const double error = half_to_float(rows[std::size_t{rank} * values + at]) - half_to_float(written[at]);
      sum += error * error;
    }
  }
  return sum / (std::uint64_t{end - first} * values);
}

void expect_attention_over_rows(const SequenceModel& model, SequenceCache& cache, SequenceId id, Text& text,
                                double tolerance) {
  const SequenceModel::Growth growth{id, text, text_of(3, 77)};
  const auto outputs = model.extend(cache, id, text, growth.added);
  for (std::uint32_t layer = 0; layer < model.layers; ++layer) {
    const auto expected = model.expected(cache, growth, layer);
    for (std::size_t at = 0; at < expected.size(); ++at) ASSERT_NEAR(outputs[layer][at], expected[at], tolerance);
  }
}

// The relative error of a value is about that of the best uniform quantizer, 0.119 at 2 bits and 0.0115 at 4, or a
// little less; twice that when a record is encoded again.
TEST(SequenceLadder, Widths_GoDownStepByStep_OldestFirst) {
  const SequenceModel model;
  const auto cache = model.make_cache(small_config("k8v8"), {1, 2000});
  Text text;
  model.extend(*cache, 0, text, text_of(700, 1));
  model.extend(*cache, 0, text, text_of(20, 2));
  const std::uint64_t before = taken(*cache);
  const SequenceId chosen[] = {0};
  ASSERT_EQ(cache->shrink(chosen, {before - 1, 2}, {}), Status::kOk);  // a tile or two get 4 bits
  EXPECT_LT(taken(*cache), before);
  EXPECT_LT(error_of(model, *cache, 0, text, 32 + 16 * 8, 600), 1e-3);
  EXPECT_GT(error_of(model, *cache, 0, text, 16, 32), 3e-3);
  ASSERT_EQ(cache->shrink(chosen, {0, 4}, {}), Status::kFull);
  const std::uint64_t at_four = taken(*cache);
  EXPECT_LT(at_four, before * 3 / 4);
  EXPECT_LT(error_of(model, *cache, 0, text, 16, 600), 0.03);
  EXPECT_GT(error_of(model, *cache, 0, text, 16, 600), 3e-3);
  const auto at_once = model.make_cache(small_config("k4v4"), {1, 2000});
  Text same;
  model.extend(*at_once, 0, same, text_of(700, 1));
  model.extend(*at_once, 0, same, text_of(20, 2));
  // Errors of 8 bits are a hundredth of those of 4, squared: what they add is lost in the noise of other codes.
  const double direct = error_of(model, *at_once, 0, same, 16, 600);
  EXPECT_NEAR(error_of(model, *cache, 0, text, 16, 600), direct, 0.05 * direct);
  expect_attention_over_rows(model, *cache, 0, text, 0.04);
  ASSERT_EQ(cache->shrink(chosen, {0, 2}, {}), Status::kFull);
  EXPECT_LT(taken(*cache), at_four);
  EXPECT_GT(error_of(model, *cache, 0, text, 16, 600), 0.05);
  EXPECT_LT(error_of(model, *cache, 0, text, 16, 600), 0.3);
  EXPECT_EQ(error_of(model, *cache, 0, text, 720 - 24, 720), 0.0);  // the tail stays exact
  EXPECT_EQ(error_of(model, *cache, 0, text, 0, 16), 0.0);
}

TEST(SequenceLadder, ExactCache_IsSealedBehindTheTailAlone) {
  const SequenceModel model;
  const auto cache = model.make_cache(small_config("f16"), {2, 2000});
  Text text;
  model.extend(*cache, 0, text, text_of(500, 1));
  const std::uint64_t before = taken(*cache);
  const SequenceId chosen[] = {0};
  EXPECT_EQ(cache->shrink(chosen, {before * 9 / 10, 2}, {}), Status::kOk);
  EXPECT_LE(taken(*cache), before * 9 / 10);
  EXPECT_GT(error_of(model, *cache, 0, text, 16, 32), 0.0);
  EXPECT_LT(error_of(model, *cache, 0, text, 16, 32), 1e-3);  // 8 bits
  EXPECT_EQ(error_of(model, *cache, 0, text, 300, 500), 0.0);
  expect_attention_over_rows(model, *cache, 0, text, 6e-3);
  EXPECT_EQ(cache->shrink(chosen, {0, 8}, {}), Status::kFull);
  EXPECT_EQ(error_of(model, *cache, 0, text, 480, 503), 0.0);
  EXPECT_GT(cache->account(0).sealed_tokens, 400u);
  ASSERT_EQ(cache->fork(0, 1), Status::kOk);
  ASSERT_EQ(cache->truncate(0, 200), Status::kOk);
  text.resize(200);
  expect_attention_over_rows(model, *cache, 0, text, 6e-3);
}

TEST(SequenceLadder, WhatOthersShare_StaysAsItIs) {
  const SequenceModel model;
  const auto cache = model.make_cache(small_config("k8v8"), {3, 2000});
  Text text;
  model.extend(*cache, 0, text, text_of(300, 1));
  model.extend(*cache, 0, text, text_of(1, 2));
  ASSERT_EQ(cache->fork(0, 1), Status::kOk);
  Text other = text;
  model.extend(*cache, 1, other, text_of(200, 3));
  model.extend(*cache, 1, other, text_of(1, 4));
  const auto rows = model.read(*cache, 0, 0, Side::kKey);
  const SequenceId alone[] = {1};
  EXPECT_EQ(cache->shrink(alone, {0, 2}, {}), Status::kFull);
  EXPECT_EQ(model.read(*cache, 0, 0, Side::kKey), rows);
  EXPECT_GT(error_of(model, *cache, 1, other, 320, 400), 0.05);
  EXPECT_LT(error_of(model, *cache, 1, other, 16, 200), 1e-3);
  const SequenceId both[] = {1, 0};
  EXPECT_EQ(cache->shrink(both, {0, 2}, {}), Status::kFull);
  EXPECT_GT(error_of(model, *cache, 0, text, 16, 200), 0.05);
  expect_attention_over_rows(model, *cache, 1, other, 0.15);
}

TEST(SequenceLadder, SameCalls_SameRows) {
  const SequenceModel model;
  std::vector<HalfBits> first;
  for (int again = 0; again < 2; ++again) {
    const auto cache = model.make_cache(small_config("k8v4"), {2, 2000});
    Text text, other;
    model.extend(*cache, 0, text, text_of(300, 1));
    model.extend(*cache, 1, other, text_of(400, 2));
    model.extend(*cache, 0, text, text_of(30, 3));
    model.extend(*cache, 1, other, text_of(30, 4));
    const SequenceId chosen[] = {1, 0};
    (void)cache->shrink(chosen, {taken(*cache) * 9 / 10, 2}, {});
    const auto rows = model.read(*cache, 1, 0, Side::kKey);
    if (again == 0) first = rows;
    EXPECT_EQ(rows, first);
  }
}

TEST(SequenceLadder, BadArguments_AreRefused) {
  const SequenceModel model;
  const auto cache = model.make_cache(small_config("k8v8"), {2, 100});
  const SequenceId none[] = {2}, twice[] = {1, 1}, good[] = {0, 1};
  EXPECT_EQ(cache->shrink(none, {0, 2}, {}), Status::kInvalidArgument);
  EXPECT_EQ(cache->shrink(twice, {0, 2}, {}), Status::kInvalidArgument);
  EXPECT_EQ(cache->shrink(good, {0, 7}, {}), Status::kInvalidArgument);
  EXPECT_EQ(cache->shrink(good, {0, 2}, {}), Status::kOk);  // nothing is held
  const StepPart part{0, 1};
  ASSERT_EQ(cache->begin({&part, 1}), Status::kOk);
  EXPECT_EQ(cache->shrink(good, {0, 2}, {}), Status::kOutOfOrder);
}

}  // namespace
}  // namespace kvarn
