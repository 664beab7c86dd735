#include "host_version.hpp"

#include <algorithm>

namespace ggml_kvarn {
namespace {

bool commits_differ(std::string_view one, std::string_view other) {
    constexpr std::string_view UNKNOWN = "unknown";
    const auto bare = [](std::string_view commit) { return commit.substr(0, commit.find('-')); };
    const std::string_view left = bare(one);
    const std::string_view right = bare(other);
    const size_t shared = std::min(left.size(), right.size());
    return shared > 0 && left != UNKNOWN && right != UNKNOWN && left.substr(0, shared) != right.substr(0, shared);
}

}  // namespace

bool is_other_host(const HostVersion & built_for, const HostVersion & host) {
    return built_for.version != host.version || commits_differ(built_for.commit, host.commit);
}

}  // namespace ggml_kvarn
