// What is stored is not measured again; what a run that was cut off had finished stays.
#include "measurement_runner.hpp"

#include <gtest/gtest.h>

#include <stdexcept>

namespace kvarn::bench {
namespace {

// Remembers who was measured together; throws before the given run.
class FakeMeasurement : public Measurement {
 public:
  explicit FakeMeasurement(std::string key) : key_(std::move(key)) {}
  std::string key() const override { return key_; }
  std::string title() const override { return key_; }
  double work() const override { return 1.0; }
  std::vector<Json> run(std::span<const CacheChoice> choices, Progress& progress) override {
    if (static_cast<int>(groups.size()) == fails_at) throw std::runtime_error("cut off");
    groups.emplace_back();
    std::vector<Json> results;
    for (const CacheChoice& choice : choices) {
      groups.back().push_back(choice.name());
      results.push_back({{"name", choice.name()}});
    }
    progress.advance(static_cast<double>(choices.size() + 1));
    return results;
  }

  std::vector<std::vector<std::string>> groups;
  int fails_at = -1;

 private:
  std::string key_;
};

class MeasurementRunnerTest : public testing::Test {
 protected:
  using Groups = std::vector<std::vector<std::string>>;
  const std::filesystem::path folder_ =
      std::filesystem::path(testing::TempDir()) / ("measurement_runner_" + std::to_string(getpid()));
  const StateStore store_{folder_};
  const std::vector<CacheChoice> choices_ = {parse_cache_choice("k4v4"), parse_cache_choice("k2v2"),
                                             parse_cache_choice("f16")};
  ~MeasurementRunnerTest() override { std::filesystem::remove_all(folder_); }
};

TEST_F(MeasurementRunnerTest, Groups_AreAsLargeAsAllowed) {
  FakeMeasurement measurement("chunk");
  Measurement* const all[] = {&measurement};
  EXPECT_EQ(run_missing(all, choices_, 2, "", store_).measured, 3u);
  EXPECT_EQ(measurement.groups, (Groups{{"k4v4", "k2v2"}, {"f16"}}));
  EXPECT_EQ(store_.load("chunk", "k2v2")->at("name"), "k2v2");
}

TEST_F(MeasurementRunnerTest, CutOffRun_GoesOnWhereItWas) {
  FakeMeasurement measurement("chunk");
  Measurement* const all[] = {&measurement};
  measurement.fails_at = 1;
  EXPECT_THROW(run_missing(all, choices_, 2, "", store_), std::runtime_error);
  measurement.fails_at = -1;
  measurement.groups.clear();
  const RunCounts counts = run_missing(all, choices_, 2, "", store_);
  EXPECT_EQ(counts.measured, 1u);
  EXPECT_EQ(counts.stored, 2u);
  EXPECT_EQ(measurement.groups, (Groups{{"f16"}}));
  EXPECT_EQ(run_missing(all, choices_, 2, "", store_).measured, 0u);
}

TEST_F(MeasurementRunnerTest, NewCache_IsMeasuredAlone) {
  FakeMeasurement first("chunk-0");
  FakeMeasurement second("chunk-1");
  Measurement* const all[] = {&first, &second};
  run_missing(all, std::span(choices_).first(2), 9, "", store_);
  EXPECT_EQ(run_missing(all, choices_, 9, "", store_).measured, 2u);
  EXPECT_EQ(first.groups, (Groups{{"k4v4", "k2v2"}, {"f16"}}));
  EXPECT_EQ(second.groups, first.groups);
}

TEST(Progress, Durations_AreReadable) {
  EXPECT_EQ(duration_text(40.2), "40 s");
  EXPECT_EQ(duration_text(-1.0), "0 s");
  EXPECT_EQ(duration_text(601.0), "11 min");
  EXPECT_EQ(duration_text(3.0 * 3600 + 60), "3 h 1 min");
}

}  // namespace
}  // namespace kvarn::bench
