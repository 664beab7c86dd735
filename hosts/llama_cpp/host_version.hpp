// Whether the ggml that loads the plugin is the one that its headers were taken from. Knows neither headers nor libraries.
#pragma once

#include <string_view>

namespace ggml_kvarn {

// What a ggml says of itself: ggml_version(), and ggml_commit(): an abbreviated hash, "-dirty" behind it where files were changed,
// or "unknown".
struct HostVersion {
    std::string_view version;
    std::string_view commit;
};

// True if the host is not the one that the plugin was built for: tables, op numbers and structs move between versions, and between
// commits of one version, behind an unchanged API number. A commit that is unknown is not held against the host; how far each is
// abbreviated does not matter.
bool is_other_host(const HostVersion & built_for, const HostVersion & host);

}  // namespace ggml_kvarn
