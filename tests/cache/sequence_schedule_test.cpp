// Random schedules of everything that callers do to sequences, against texts and the reference's attention.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <string_view>

#include "sequence_model.hpp"

namespace kvarn {
namespace {

// Everything that callers do, in random order, against texts and the reference over the rows read back.
void run_schedule(const char* preset, std::uint32_t window, std::uint32_t seed) {
  SCOPED_TRACE("preset " + std::string(preset) + " window " + std::to_string(window) + " seed " + std::to_string(seed));
  constexpr std::uint32_t kSequences = 4;
  SequenceModel model;
  model.window = window;
  const auto cache = model.make_cache(small_config(preset), {kSequences, 300});
  std::vector<Text> texts(kSequences);
  std::mt19937 random(seed);
  // Decoded rows are rounded to half precision (6e-3 of an output of order one); the integer kernels may add a
  // twentieth of the squared error of sealing, which is half a step of the codes over a range of 6 (fake_engine.hpp).
  const double tolerance = std::string_view(preset) == "f16" ? 6e-3 : 6e-3 + 0.065 * 6.0 / 15.0;
  for (int step = 0; step < 60; ++step) {
    const std::uint32_t id = random() % kSequences;
    Text& text = texts[id];
    switch (random() % 8) {
      case 0: {
        const auto kept = static_cast<std::uint32_t>(text.size() - std::min<std::size_t>(text.size(), random() % 60));
        ASSERT_EQ(cache->truncate(id, kept), Status::kOk);
        text.resize(kept);
        break;
      }
      case 1: {
        const std::uint32_t to = random() % kSequences;
        if (to == id) break;
        ASSERT_EQ(cache->drop(to), Status::kOk);
        ASSERT_EQ(cache->fork(id, to), Status::kOk);
        texts[to] = text;
        break;
      }
      default: {
        std::vector<SequenceModel::Growth> growths;
        for (std::uint32_t sequence = 0; sequence < kSequences; ++sequence) {
          if (sequence != id && random() % 3 != 0) continue;
          if (texts[sequence].size() > 240) {
            ASSERT_EQ(cache->drop(sequence), Status::kOk);
            texts[sequence].clear();
          }
          growths.push_back({sequence, texts[sequence], text_of(1 + random() % (random() % 2 ? 3 : 50), random())});
        }
        const auto outputs = model.run_step(*cache, growths);
        if (random() % 6 == 0) {
          cache->cancel();
          break;
        }
        ASSERT_EQ(cache->commit(), Status::kOk);
        std::size_t at = 0;
        for (const auto& growth : growths) {
          Text& grown = texts[growth.sequence];
          grown.insert(grown.end(), growth.added.begin(), growth.added.end());
          for (std::uint32_t layer = 0; layer < model.layers; ++layer) {
            const auto expected = model.expected(*cache, growth, layer);
            for (std::size_t value = 0; value < expected.size(); ++value) {
              ASSERT_NEAR(outputs[layer][at + value], expected[value], tolerance) << "step " << step;
            }
          }
          at += growth.added.size() * model.out_values();
        }
      }
    }
    for (std::uint32_t sequence = 0; sequence < kSequences; ++sequence) {
      ASSERT_EQ(cache->length(sequence), texts[sequence].size());
    }
    if (std::string_view(preset) == "f16") expect_exact_rows(model, *cache, id, texts[id], 0);
    ASSERT_FALSE(testing::Test::HasFatalFailure()) << "step " << step;
  }
  ASSERT_EQ(cache->clear(), Status::kOk);
  EXPECT_EQ(cache->account().record_bytes + cache->account().row_bytes, 0u);
  EXPECT_EQ(cache->account().query_bytes, 0u);
}

TEST(SequenceCache, RandomSchedules_MatchTheReference) {
  for (std::uint32_t seed = 1; seed <= 4; ++seed) {
    for (const char* preset : {"f16", "k4v4", "k8v8", "k4v4+bytes"}) run_schedule(preset, 0, seed);
  }
}

TEST(SequenceCache, RandomSchedulesWithAWindow_MatchTheReference) {
  for (const std::uint32_t window : {1u, 16u, 37u, 1000u}) run_schedule("k4v4", window, window);
}

}  // namespace
}  // namespace kvarn
