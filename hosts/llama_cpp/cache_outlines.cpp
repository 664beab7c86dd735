#include "cache_outlines.hpp"

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>

namespace ggml_kvarn {
namespace {

struct Known {
    CacheOutline outline;
    bool is_paired = false;  // with the other cache of its context, for good
    bool is_window = false;
};

struct Outlines {
    std::mutex mutex;
    std::map<uint64_t, Known> by_buffer;
    std::atomic<uint64_t> version{1};
    std::atomic<uint64_t> last_number{0};
};

Outlines & outlines() {
    static Outlines instance;
    return instance;
}

bool are_of_one_context(const CacheOutline & one, const CacheOutline & other) {
    const auto is_shared = [&](uint32_t layer) { return other.layers.count(layer) != 0; };
    return one.streams == other.streams && std::none_of(one.layers.begin(), one.layers.end(), is_shared);
}

// From the oldest on, so that the second cache of one context is not taken for the neighbour of the next context's first.
void pair_neighbours(std::map<uint64_t, Known> & all) {
    Known * before = nullptr;
    for (auto & [number, known] : all) {
        const bool is_pair = before != nullptr && !before->is_paired && !known.is_paired && are_of_one_context(before->outline, known.outline);
        if (is_pair) {
            before->is_paired = known.is_paired = true;
            // The host makes the cache of all that is seen first; asked to keep all cells of the other, it gives it as many.
            (before->outline.cells < known.outline.cells ? *before : known).is_window = true;
        }
        before = &known;
    }
}

}  // namespace

uint64_t next_buffer_number() {
    return ++outlines().last_number;
}

void note_outline(uint64_t buffer, const CacheOutline & outline) {
    std::lock_guard<std::mutex> lock(outlines().mutex);
    outlines().by_buffer[buffer].outline = outline;
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
    auto & all = outlines().by_buffer;
    pair_neighbours(all);
    const auto own = all.find(buffer);
    return own != all.end() && own->second.is_window;
}

}  // namespace ggml_kvarn
