// The plugin loads into the ggml of its headers only.
#include "host_version.hpp"

#include <gtest/gtest.h>

namespace ggml_kvarn {
namespace {

constexpr HostVersion BUILT_FOR = {"0.25.3", "b3daa077a56cfda820b22fc28941a6d82080e8e0"};

TEST(HostVersion, SameVersionAndCommit_IsTheHost) {
    EXPECT_FALSE(is_other_host(BUILT_FOR, BUILT_FOR));
    EXPECT_FALSE(is_other_host(BUILT_FOR, {"0.25.3", "b3daa077a"}));
    EXPECT_FALSE(is_other_host(BUILT_FOR, {"0.25.3", "b3daa077a-dirty"}));
}

TEST(HostVersion, CommitThatNobodyKnows_IsNotHeldAgainstTheHost) {
    EXPECT_FALSE(is_other_host(BUILT_FOR, {"0.25.3", "unknown"}));
    EXPECT_FALSE(is_other_host(BUILT_FOR, {"0.25.3", ""}));
    EXPECT_FALSE(is_other_host({"0.25.3", "unknown"}, {"0.25.3", "b3daa077a"}));
}

TEST(HostVersion, OtherVersion_IsRefused) {
    EXPECT_TRUE(is_other_host(BUILT_FOR, {"0.26.0", BUILT_FOR.commit}));
    EXPECT_TRUE(is_other_host(BUILT_FOR, {"0.25.30", "unknown"}));
    EXPECT_TRUE(is_other_host(BUILT_FOR, {"0.25", "unknown"}));
}

TEST(HostVersion, OtherCommitOfTheSameVersion_IsRefused) {
    EXPECT_TRUE(is_other_host(BUILT_FOR, {"0.25.3", "c060ca974"}));
    EXPECT_TRUE(is_other_host(BUILT_FOR, {"0.25.3", "c060ca974-dirty"}));
}

}  // namespace
}  // namespace ggml_kvarn
