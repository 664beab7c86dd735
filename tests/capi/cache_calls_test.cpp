// The cache of the C interface, through the shared library, as a program would use it. What a cache computes is tested
// in tests/cache; here it is that the calls say and do what the header promises.
#include <gtest/gtest.h>
#include <kvarn/kvarn.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "small_cache.hpp"

namespace {

Cache make_cache(uint32_t sequences = 2, uint32_t tokens = 200) { return cache_of(small_config(), sequences, tokens); }

uint32_t length(const kvarn_cache* cache, uint32_t sequence) {
  uint32_t tokens = 0;
  EXPECT_EQ(kvarn_sequence_length(cache, sequence, &tokens), KVARN_STATUS_OK);
  return tokens;
}

TEST(CacheCalls, OneTokenAlone_SeesItsOwnValue) {
  const Cache cache = make_cache();
  const auto out = step(cache.get(), 0, 1, 1);
  const auto v = normals(kKvHeads * kDim, 12);
  for (uint32_t head = 0; head < kHeads; ++head) {
    for (uint32_t channel = 0; channel < kDim; ++channel) {
      // Rounded to half precision: 2^-11 of the value.
      EXPECT_NEAR(out[head * kDim + channel], v[head / 2 * kDim + channel], 3e-3);
    }
  }
}

TEST(CacheCalls, ForkCutAndDrop_DoWhatTheySay) {
  const Cache cache = make_cache();
  step(cache.get(), 0, 100, 1);
  EXPECT_EQ(kvarn_sequence_fork(cache.get(), 0, 1), KVARN_STATUS_OK);
  EXPECT_EQ(length(cache.get(), 1), 100u);
  EXPECT_EQ(step(cache.get(), 0, 3, 2), step(cache.get(), 1, 3, 2));
  EXPECT_EQ(kvarn_sequence_truncate(cache.get(), 0, 101), KVARN_STATUS_OK);
  EXPECT_EQ(length(cache.get(), 0), 101u);
  EXPECT_EQ(kvarn_sequence_truncate(cache.get(), 0, 102), KVARN_STATUS_INVALID_ARGUMENT);
  EXPECT_EQ(kvarn_sequence_fork(cache.get(), 0, 1), KVARN_STATUS_INVALID_ARGUMENT);
  EXPECT_EQ(kvarn_sequence_drop(cache.get(), 1), KVARN_STATUS_OK);
  EXPECT_EQ(length(cache.get(), 1), 0u);
  EXPECT_EQ(kvarn_cache_clear(cache.get()), KVARN_STATUS_OK);
  EXPECT_EQ(length(cache.get(), 0), 0u);
}

TEST(CacheCalls, CancelledStep_LeavesItsTokensNowhere) {
  const Cache cache = make_cache();
  step(cache.get(), 0, 5, 1);
  const kvarn_step_part parts[] = {{0, 50}, {1, 7}};
  ASSERT_EQ(kvarn_step_begin(cache.get(), parts, 2), KVARN_STATUS_OK);
  EXPECT_EQ(kvarn_sequence_drop(cache.get(), 0), KVARN_STATUS_OUT_OF_ORDER);
  EXPECT_EQ(kvarn_step_commit(cache.get()), KVARN_STATUS_OUT_OF_ORDER);
  EXPECT_EQ(kvarn_step_cancel(cache.get()), KVARN_STATUS_OK);
  EXPECT_EQ(length(cache.get(), 0), 5u);
  EXPECT_EQ(length(cache.get(), 1), 0u);
  const kvarn_step_part many{0, 196};
  EXPECT_EQ(kvarn_step_begin(cache.get(), &many, 1), KVARN_STATUS_FULL);
}

TEST(CacheCalls, RowsReadBack_InBothTypesAndAnyLayout) {
  const Cache cache = make_cache();
  step(cache.get(), 0, 90, 1);
  step(cache.get(), 0, 1, 2);
  std::vector<uint16_t> halves(91 * kKvHeads * kDim);
  std::vector<float> floats(kKvHeads * 91 * kDim);
  const kvarn_row_range range{1, KVARN_SIDE_V, 0, 91};
  const kvarn_rows by_token{halves.data(), KVARN_TYPE_F16, kKvHeads * kDim, kDim};
  const kvarn_rows by_head{floats.data(), KVARN_TYPE_F32, kDim, 91 * kDim};
  ASSERT_EQ(kvarn_sequence_read(cache.get(), 0, &range, &by_token), KVARN_STATUS_OK);
  ASSERT_EQ(kvarn_sequence_read(cache.get(), 0, &range, &by_head), KVARN_STATUS_OK);
  const auto written = normals(90 * kKvHeads * kDim, 13);
  double exact = 0, sealed = 0;
  for (std::size_t token = 0; token < 90; ++token) {
    for (std::size_t head = 0; head < kKvHeads; ++head) {
      for (std::size_t channel = 0; channel < kDim; ++channel) {
        const float read = floats[(head * 91 + token) * kDim + channel];
        const float error = std::abs(read - written[(token * kKvHeads + head) * kDim + channel]);
        (token < 16 || token >= 74 ? exact : sealed) += error;
      }
    }
  }
  EXPECT_LT(exact / (32 * kKvHeads * kDim), 3e-4);  // the rounding to half precision
  EXPECT_GT(sealed / (58 * kKvHeads * kDim), 3e-3);
  EXPECT_LT(sealed / (58 * kKvHeads * kDim), 0.1);
  EXPECT_TRUE(std::any_of(halves.begin(), halves.end(), [](uint16_t half) { return half != 0; }));
  const kvarn_row_range beyond{1, KVARN_SIDE_V, 90, 2};
  EXPECT_EQ(kvarn_sequence_read(cache.get(), 0, &beyond, &by_token), KVARN_STATUS_INVALID_ARGUMENT);
}

TEST(CacheCalls, Presets_SetWidthsOrNothing) {
  kvarn_cache_config config = KVARN_CACHE_CONFIG_INIT;
  EXPECT_EQ(kvarn_cache_config_preset(&config, "k4v2"), KVARN_STATUS_OK);
  EXPECT_EQ(config.k_bits, 4u);
  EXPECT_EQ(config.v_bits, 2u);
  EXPECT_EQ(kvarn_cache_config_preset(&config, "f16"), KVARN_STATUS_OK);
  EXPECT_EQ(config.k_bits, 16u);
  EXPECT_EQ(kvarn_cache_config_preset(&config, "k7v2"), KVARN_STATUS_INVALID_ARGUMENT);
  EXPECT_EQ(config.k_bits, 16u);
  EXPECT_EQ(kvarn_cache_config_preset(&config, nullptr), KVARN_STATUS_INVALID_ARGUMENT);
  EXPECT_EQ(kvarn_cache_config_preset(nullptr, "f16"), KVARN_STATUS_INVALID_ARGUMENT);
}

TEST(CacheCalls, StructsOfOtherVersions_AreUnderstood) {
  // A newer program: more members, all of them zero.
  struct Newer {
    kvarn_cache_config config;
    uint64_t unknown;
  } newer{small_config(), 0};
  newer.config.struct_size = sizeof(Newer);
  kvarn_cache_limits limits = KVARN_CACHE_LIMITS_INIT;
  kvarn_cache* made = nullptr;
  ASSERT_EQ(kvarn_cache_create(&newer.config, kLayers, 2, &limits, nullptr, &made), KVARN_STATUS_OK);
  const Cache cache(made);
  newer.unknown = 1;
  EXPECT_EQ(kvarn_cache_create(&newer.config, kLayers, 2, &limits, nullptr, &made), KVARN_STATUS_INVALID_ARGUMENT);
  // An older program: it knows the first two counts of an account, and nothing behind them is written.
  step(cache.get(), 0, 3, 1);
  kvarn_cache_account account;
  std::memset(&account, 0x55, sizeof account);
  account.struct_size = offsetof(kvarn_cache_account, record_bytes);
  ASSERT_EQ(kvarn_cache_get_account(cache.get(), &account), KVARN_STATUS_OK);
  EXPECT_EQ(account.struct_size, offsetof(kvarn_cache_account, record_bytes));
  EXPECT_EQ(account.tokens, 3u);
  EXPECT_EQ(account.record_bytes, 0x5555555555555555u);
  account.struct_size = 0;
  EXPECT_EQ(kvarn_cache_get_account(cache.get(), &account), KVARN_STATUS_INVALID_ARGUMENT);
}

TEST(CacheCalls, FieldsOfOneByte_TakeLessAndAreForLevelsThatSearch) {
  const auto record_bytes = [](kvarn_fields fields) {
    kvarn_cache_config config = small_config();
    config.fields = fields;
    const Cache cache = cache_of(config, 1, 200);
    step(cache.get(), 0, 100, 1);
    step(cache.get(), 0, 30, 2);
    kvarn_cache_account account = KVARN_CACHE_ACCOUNT_INIT;
    EXPECT_EQ(kvarn_cache_get_account(cache.get(), &account), KVARN_STATUS_OK);
    return account.record_bytes;
  };
  EXPECT_GT(record_bytes(KVARN_FIELDS_BYTE), 0u);
  EXPECT_LT(record_bytes(KVARN_FIELDS_BYTE), record_bytes(KVARN_FIELDS_HALF));
  kvarn_cache_config config = small_config();
  kvarn_cache_limits limits = KVARN_CACHE_LIMITS_INIT;
  kvarn_cache* made = nullptr;
  config.fields = KVARN_FIELDS_BYTE;
  config.level = KVARN_LEVEL_OFFICIAL;
  EXPECT_EQ(kvarn_cache_create(&config, kLayers, 2, &limits, nullptr, &made), KVARN_STATUS_INVALID_ARGUMENT);
  config.level = KVARN_LEVEL_DEFAULT;
  config.fields = 2;
  EXPECT_EQ(kvarn_cache_create(&config, kLayers, 2, &limits, nullptr, &made), KVARN_STATUS_INVALID_ARGUMENT);
}

TEST(CacheCalls, Accounts_AddUp) {
  const Cache cache = make_cache();
  step(cache.get(), 0, 100, 1);
  step(cache.get(), 0, 1, 2);
  ASSERT_EQ(kvarn_sequence_fork(cache.get(), 0, 1), KVARN_STATUS_OK);
  kvarn_cache_account all = KVARN_CACHE_ACCOUNT_INIT;
  kvarn_sequence_account one = KVARN_SEQUENCE_ACCOUNT_INIT;
  ASSERT_EQ(kvarn_cache_get_account(cache.get(), &all), KVARN_STATUS_OK);
  ASSERT_EQ(kvarn_sequence_get_account(cache.get(), 0, &one), KVARN_STATUS_OK);
  EXPECT_EQ(all.tokens, 202u);
  EXPECT_EQ(all.stored_tokens, 101u);
  EXPECT_EQ(all.f16_bytes, 2 * one.f16_bytes);
  EXPECT_EQ(one.f16_bytes, 101u * 2 * 2 * kKvHeads * kDim * 2);
  EXPECT_EQ(one.tokens, 101u);
  EXPECT_GE(one.sealed_tokens, 48u);
  EXPECT_EQ(one.own_bytes, 0u);
  EXPECT_EQ(one.held_bytes, all.record_bytes + all.row_bytes + all.query_bytes);
}

TEST(CacheCalls, Shrink_MakesRecordsSmallerAndSaysWhenThatIsNotEnough) {
  const Cache cache = make_cache(2, 500);
  step(cache.get(), 0, 300, 1);
  step(cache.get(), 0, 1, 2);
  kvarn_cache_account before = KVARN_CACHE_ACCOUNT_INIT, after = KVARN_CACHE_ACCOUNT_INIT;
  ASSERT_EQ(kvarn_cache_get_account(cache.get(), &before), KVARN_STATUS_OK);
  const uint32_t sequences[] = {0, 1};
  kvarn_shrink shrink = KVARN_SHRINK_INIT;
  EXPECT_EQ(kvarn_cache_shrink(cache.get(), nullptr, nullptr), KVARN_STATUS_INVALID_ARGUMENT);
  shrink.sequence_count = 2;
  EXPECT_EQ(kvarn_cache_shrink(cache.get(), &shrink, nullptr), KVARN_STATUS_INVALID_ARGUMENT);
  shrink.sequences = sequences;
  EXPECT_EQ(kvarn_cache_shrink(nullptr, &shrink, nullptr), KVARN_STATUS_INVALID_ARGUMENT);
  EXPECT_EQ(kvarn_cache_shrink(cache.get(), &shrink, nullptr), KVARN_STATUS_FULL);
  ASSERT_EQ(kvarn_cache_get_account(cache.get(), &after), KVARN_STATUS_OK);
  EXPECT_LT(after.record_bytes, before.record_bytes * 7 / 10);  // 2.5 of 4.5 bits, and scales
  EXPECT_EQ(after.row_bytes, before.row_bytes);
  shrink.bytes = before.record_bytes + before.row_bytes + before.slack_bytes;
  EXPECT_EQ(kvarn_cache_shrink(cache.get(), &shrink, nullptr), KVARN_STATUS_OK);
}

TEST(CacheCalls, NullPointersAndNumbersOutOfRange_AreRefused) {
  const Cache cache = make_cache();
  kvarn_cache* made = nullptr;
  const kvarn_cache_config config = small_config();
  const kvarn_cache_limits limits = KVARN_CACHE_LIMITS_INIT;
  const kvarn_status bad = KVARN_STATUS_INVALID_ARGUMENT;
  EXPECT_EQ(kvarn_cache_create(nullptr, kLayers, 2, &limits, nullptr, &made), bad);
  EXPECT_EQ(kvarn_cache_create(&config, nullptr, 2, &limits, nullptr, &made), bad);
  EXPECT_EQ(kvarn_cache_create(&config, kLayers, 0, &limits, nullptr, &made), bad);
  EXPECT_EQ(kvarn_cache_create(&config, kLayers, 2, nullptr, nullptr, &made), bad);
  EXPECT_EQ(kvarn_cache_create(&config, kLayers, 2, &limits, nullptr, nullptr), bad);
  kvarn_allocator half = KVARN_ALLOCATOR_INIT;
  half.release = [](void*, void*, size_t) {};
  EXPECT_EQ(kvarn_cache_create(&config, kLayers, 2, &limits, &half, &made), bad);
  EXPECT_EQ(made, nullptr);
  kvarn_cache_destroy(nullptr);
  EXPECT_EQ(kvarn_cache_clear(nullptr), bad);
  const kvarn_step_part part{0, 1};
  EXPECT_EQ(kvarn_step_begin(nullptr, &part, 1), bad);
  EXPECT_EQ(kvarn_step_begin(cache.get(), nullptr, 1), bad);
  EXPECT_EQ(kvarn_step_begin(cache.get(), &part, 0), bad);
  EXPECT_EQ(kvarn_step_commit(nullptr), bad);
  EXPECT_EQ(kvarn_step_cancel(nullptr), bad);
  uint32_t tokens = 0;
  EXPECT_EQ(kvarn_sequence_length(nullptr, 0, &tokens), bad);
  EXPECT_EQ(kvarn_sequence_length(cache.get(), 2, &tokens), bad);
  EXPECT_EQ(kvarn_sequence_length(cache.get(), 0, nullptr), bad);
  EXPECT_EQ(kvarn_sequence_truncate(nullptr, 0, 0), bad);
  EXPECT_EQ(kvarn_sequence_fork(nullptr, 0, 1), bad);
  EXPECT_EQ(kvarn_sequence_drop(cache.get(), 2), bad);
  EXPECT_EQ(kvarn_sequence_read(cache.get(), 0, nullptr, nullptr), bad);
  EXPECT_EQ(kvarn_cache_get_account(cache.get(), nullptr), bad);
  EXPECT_EQ(kvarn_sequence_get_account(cache.get(), 0, nullptr), bad);
  ASSERT_EQ(kvarn_step_begin(cache.get(), &part, 1), KVARN_STATUS_OK);
  const std::vector<float> row(kHeads * kDim);
  std::vector<float> out(kHeads * kDim);
  const kvarn_const_rows rows{row.data(), KVARN_TYPE_F32, 0, kDim};
  const kvarn_const_rows halves{row.data(), KVARN_TYPE_F16, 0, kDim};
  const kvarn_rows outputs{out.data(), KVARN_TYPE_F32, 0, kDim};
  kvarn_query query = KVARN_QUERY_INIT;
  EXPECT_EQ(kvarn_step_append(cache.get(), 0, nullptr, &rows, nullptr), bad);
  EXPECT_EQ(kvarn_step_append(cache.get(), 0, &rows, &halves, nullptr), bad);
  const kvarn_const_rows codec_only{row.data(), KVARN_TYPE_BF16, 0, kDim};
  EXPECT_EQ(kvarn_step_append(cache.get(), 0, &codec_only, &codec_only, nullptr), bad);
  EXPECT_EQ(kvarn_step_append(cache.get(), 2, &rows, &rows, nullptr), bad);
  EXPECT_EQ(kvarn_step_append(cache.get(), 0, &rows, &rows, nullptr), KVARN_STATUS_OK);
  EXPECT_EQ(kvarn_step_attend(cache.get(), 0, nullptr, &rows, &outputs, nullptr), bad);
  EXPECT_EQ(kvarn_step_attend(cache.get(), 0, &query, &halves, &outputs, nullptr), bad);
  query.scale = NAN;
  EXPECT_EQ(kvarn_step_attend(cache.get(), 0, &query, &rows, &outputs, nullptr), bad);
  query.scale = 1.0f;
  kvarn_runner runner = KVARN_RUNNER_INIT;
  runner.workers = 0;
  runner.run = [](void*, size_t, kvarn_task, void*) {};
  EXPECT_EQ(kvarn_step_attend(cache.get(), 0, &query, &rows, &outputs, &runner), bad);
  EXPECT_EQ(kvarn_step_attend(cache.get(), 0, &query, &rows, &outputs, nullptr), KVARN_STATUS_OK);
}

TEST(LibraryCalls, VersionsAndTexts) {
  EXPECT_EQ(kvarn_version_number(), static_cast<uint32_t>(KVARN_VERSION_NUMBER));
  EXPECT_STREQ(kvarn_version_text(), KVARN_PROJECT_VERSION);
  EXPECT_STREQ(kvarn_status_text(KVARN_STATUS_OK), "ok");
  for (int status = KVARN_STATUS_OK; status <= KVARN_STATUS_FULL; ++status) {
    EXPECT_STRNE(kvarn_status_text(static_cast<kvarn_status>(status)), "unknown status") << status;
  }
  EXPECT_STREQ(kvarn_status_text(static_cast<kvarn_status>(KVARN_STATUS_FULL + 100)), "unknown status");
  const std::string best = kvarn_kernels_name();
  EXPECT_EQ(kvarn_kernels_choose("abacus"), KVARN_STATUS_INVALID_ARGUMENT);
  EXPECT_EQ(kvarn_kernels_choose(nullptr), KVARN_STATUS_INVALID_ARGUMENT);
  EXPECT_EQ(kvarn_kernels_choose(best.c_str()), KVARN_STATUS_OK);
  EXPECT_EQ(kvarn_kernels_name(), best);
}

}  // namespace
