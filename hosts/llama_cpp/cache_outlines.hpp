// The caches that are alive, in the order in which the host made their buffers. A model with sliding windows has two of
// them: one for the layers that see everything and, made right before or after it, one of fewer cells for those that do not, or
// made right after it and of as many cells. The host says so nowhere else before a sequence has outgrown the window.
#pragma once

#include <cstdint>
#include <set>

namespace ggml_kvarn {

struct CacheOutline {
    uint32_t cells = 0;
    uint32_t streams = 0;
    std::set<uint32_t> layers;
};

// A number for a buffer, larger than those handed out before.
uint64_t next_buffer_number();
// Tells, or tells anew, what the cache in a buffer looks like.
void note_outline(uint64_t buffer, const CacheOutline & outline);
void forget_outline(uint64_t buffer);
// Grows with every change.
uint64_t outlines_version();
// True if the cache and its neighbour belong to one context, being of as many streams and other layers, and the other one has more
// cells (or as many, if made before it). A cache has one such neighbour, the first that is found, for good.
bool is_window_cache(uint64_t buffer);

}  // namespace ggml_kvarn
