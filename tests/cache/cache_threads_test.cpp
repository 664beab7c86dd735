// Several caches at once, each on threads of its own, under one limit: what they hold is what each holds alone. Run
// under the thread sanitizer by ./kvarn test --long.
#include <thread>

#include "kept_bytes.hpp"
#include "short_lived_team.hpp"

namespace kvarn {
namespace {

struct Work {
  const char* preset;
  std::uint32_t seed;
};
constexpr Work kWorks[] = {{"k4v4", 1}, {"k2v2", 2}, {"k8v8", 3}, {"f16", 4}};

// A life of three sequences: interleaved, cut, saved and restored, forked. Returns what is left of them.
KeptBytes live(const Work& work, const Runner& runner, MemoryLimit* limit) {
  FakeEngine engine(config_of(work.preset, 16, 16, 16), 1024, work.seed, 1, limit);
  engine.set_runner(runner);
  engine.set_text([&](int sequence, std::int64_t) { return work.seed * 10 + static_cast<std::uint32_t>(sequence); });
  for (int round = 0; round < 3; ++round) {
    for (int batch = 0; batch < 12; ++batch)
      EXPECT_TRUE(engine.decode({0, 1, 0, 1, 1, 0}, {}, FakeEngine::Check::kOff));
    EXPECT_TRUE(engine.append(2, 40, FakeEngine::Check::kOff));
    engine.roll_back(1, 5);
    EXPECT_TRUE(engine.restore(engine.save(0), 0));
    engine.fork(1, 2);
    EXPECT_TRUE(engine.append(2, 30, FakeEngine::Check::kOff));
  }
  KeptBytes kept;
  for (const int sequence : {0, 1, 2}) {
    KeptBytes one = kept_bytes(engine, sequence, 0);
    kept.insert(kept.end(), one.begin(), one.end());
  }
  return kept;
}

TEST(CacheThreads, CachesAtWorkAtOnce_HoldWhatEachHoldsAlone) {
  std::vector<KeptBytes> alone;
  for (const Work& work : kWorks) alone.push_back(live(work, Runner{}, nullptr));
  MemoryLimit limit;
  limit.set(std::uint64_t{1} << 30);
  std::vector<KeptBytes> together(std::size(kWorks));
  std::vector<std::thread> threads;
  for (std::size_t at = 0; at < std::size(kWorks); ++at) {
    threads.emplace_back([&, at] {
      ShortLivedTeam team{3};
      together[at] = live(kWorks[at], team.runner(), &limit);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (std::size_t at = 0; at < std::size(kWorks); ++at) expect_same(alone[at], together[at]);
  EXPECT_EQ(limit.taken(), 0u);
}

}  // namespace
}  // namespace kvarn
