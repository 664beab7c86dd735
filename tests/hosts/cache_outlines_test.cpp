#include "cache_outlines.hpp"

#include <gtest/gtest.h>

#include <memory>

namespace ggml_kvarn {
namespace {

// A cache for the length of a test.
class Made {
  public:
    Made(uint32_t cells, uint32_t streams, const std::set<uint32_t> & layers) { note_outline(number, {cells, streams, layers}); }
    ~Made() { forget_outline(number); }
    Made(const Made &) = delete;
    Made & operator=(const Made &) = delete;

    const uint64_t number = next_buffer_number();
};

TEST(CacheOutlines, CacheBesideOneOfMoreCellsAndOtherLayers_HasAWindow) {
    const Made full(4096, 1, {5, 11, 17});
    const Made window(1024, 1, {0, 1, 2, 3, 4, 6});
    EXPECT_TRUE(is_window_cache(window.number));
    EXPECT_FALSE(is_window_cache(full.number));
}

TEST(CacheOutlines, OrderInWhichTheTwoAreMade_DoesNotMatter) {
    const Made window(1024, 1, {0, 1});
    EXPECT_FALSE(is_window_cache(window.number));
    const Made full(4096, 1, {2, 3});
    EXPECT_TRUE(is_window_cache(window.number));
}

TEST(CacheOutlines, SmallerContextOfTheSameLayers_HasNone) {
    const Made large(4096, 1, {0, 1, 2, 3});
    const Made small(1024, 1, {0, 1});
    EXPECT_FALSE(is_window_cache(small.number));
}

TEST(CacheOutlines, OfTwoWithAsManyCells_TheSecondHasAWindow) {
    const Made full(4096, 1, {2, 3});
    const Made window(4096, 1, {0, 1});
    EXPECT_TRUE(is_window_cache(window.number));
    EXPECT_FALSE(is_window_cache(full.number));
}

TEST(CacheOutlines, ContextsSideBySide_HaveOneWindowEach) {
    for (const uint32_t window_cells : {1024u, 4096u}) {
        const Made full(4096, 1, {2, 3});
        const Made window(window_cells, 1, {0, 1});
        const Made next_full(1024, 1, {2, 3});
        const Made next_window(1024, 1, {0, 1});
        EXPECT_FALSE(is_window_cache(full.number));
        EXPECT_TRUE(is_window_cache(window.number));
        EXPECT_FALSE(is_window_cache(next_full.number));
        EXPECT_TRUE(is_window_cache(next_window.number));
    }
}

TEST(CacheOutlines, ContextThatGoes_LeavesTheOthersAsTheyAre) {
    auto full = std::make_unique<Made>(1024, 1, std::set<uint32_t>{2, 3});
    const Made window(1024, 1, {0, 1});
    const Made next_full(1024, 1, {2, 3});
    const Made next_window(1024, 1, {0, 1});
    EXPECT_TRUE(is_window_cache(window.number));
    full.reset();
    EXPECT_TRUE(is_window_cache(window.number));
    EXPECT_FALSE(is_window_cache(next_full.number));
    EXPECT_TRUE(is_window_cache(next_window.number));
}

TEST(CacheOutlines, OtherStreams_AreAnotherContext) {
    const Made full(4096, 4, {2, 3});
    const Made other(1024, 1, {0, 1});
    EXPECT_FALSE(is_window_cache(other.number));
}

TEST(CacheOutlines, CacheBetweenTheTwo_IsNotOfThem) {
    const Made full(4096, 1, {2, 3});
    const Made between(4096, 1, {0, 1, 2, 3});
    const Made window(1024, 1, {0, 1});
    EXPECT_FALSE(is_window_cache(window.number));
}

TEST(CacheOutlines, EveryChange_HasAVersionOfItsOwn) {
    const uint64_t before = outlines_version();
    {
        const Made one(16, 1, {0});
        EXPECT_GT(outlines_version(), before);
    }
    EXPECT_GT(outlines_version(), before + 1);
    EXPECT_FALSE(is_window_cache(0));
}

}  // namespace
}  // namespace ggml_kvarn
