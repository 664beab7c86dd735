#include "cache_outlines.hpp"

#include <algorithm>
#include <atomic>
#include <iterator>
#include <map>
#include <mutex>

namespace ggml_kvarn {
namespace {

struct Outlines {
    std::mutex mutex;
    std::map<uint64_t, CacheOutline> by_buffer;
    std::atomic<uint64_t> version{1};
    std::atomic<uint64_t> last_number{0};
};

Outlines & outlines() {
    static Outlines instance;
    return instance;
}

bool is_of_one_context(const CacheOutline & one, const CacheOutline & other) {
    const auto is_shared = [&](uint32_t layer) { return other.layers.count(layer) != 0; };
    return one.streams == other.streams && std::none_of(one.layers.begin(), one.layers.end(), is_shared);
}

}  // namespace

uint64_t next_buffer_number() {
    return ++outlines().last_number;
}

void note_outline(uint64_t buffer, const CacheOutline & outline) {
    std::lock_guard<std::mutex> lock(outlines().mutex);
    outlines().by_buffer[buffer] = outline;
    ++outlines().version;
}

void forget_outline(uint64_t buffer) {
    std::lock_guard<std::mutex> lock(outlines().mutex);
    outlines().version += outlines().by_buffer.erase(buffer);
}

uint64_t outlines_version() {
    return outlines().version;
}

bool is_window_cache(uint64_t buffer) {
    std::lock_guard<std::mutex> lock(outlines().mutex);
    const auto & all = outlines().by_buffer;
    const auto own = all.find(buffer);
    if (own == all.end()) {
        return false;
    }
    const CacheOutline & outline = own->second;
    const auto next = std::next(own);
    if (next != all.end() && next->second.cells > outline.cells && is_of_one_context(next->second, outline)) {
        return true;
    }
    // The host makes the cache of all that is seen first; asked to keep all cells of the other, it gives it as many.
    return own != all.begin() && std::prev(own)->second.cells >= outline.cells && is_of_one_context(std::prev(own)->second, outline);
}

}  // namespace ggml_kvarn
