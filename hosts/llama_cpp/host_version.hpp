// Whether the ggml that loads the plugin is the one that its headers were taken from. Knows neither headers nor libraries.
#pragma once

#include <algorithm>
#include <string_view>

namespace ggml_kvarn {

// What a ggml says of itself: ggml_version(), and ggml_commit(): an abbreviated hash, "-dirty" behind it where files were changed,
// or "unknown".
struct HostVersion {
    std::string_view version;
    std::string_view commit;
};

// True if both commits are known and are not the same one; how far each is abbreviated does not matter.
inline bool commits_differ(std::string_view one, std::string_view other) {
    constexpr std::string_view UNKNOWN = "unknown";
    const auto bare = [](std::string_view commit) { return commit.substr(0, commit.find('-')); };
    const std::string_view left = bare(one);
    const std::string_view right = bare(other);
    const size_t shared = std::min(left.size(), right.size());
    return shared > 0 && left != UNKNOWN && right != UNKNOWN && left.substr(0, shared) != right.substr(0, shared);
}

// Tables, op numbers and structs move between versions and between commits of one version, behind an unchanged API number.
inline bool is_other_host(const HostVersion & built_for, const HostVersion & host) {
    return built_for.version != host.version || commits_differ(built_for.commit, host.commit);
}

}  // namespace ggml_kvarn
