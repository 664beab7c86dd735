// The three operations that touch a served cache: writing rows, attention, and the host's K-shift.
#pragma once

#include "cache_buffer.hpp"
#include "plain_mode.hpp"

namespace ggml_kvarn {

// What one node means for a served cache.
enum class NodeKind {
    PLAIN,      // no served cache behind it, or one that was just demoted: the CPU backend computes it
    WRITE,      // SET_ROWS
    ATTENTION,  // FLASH_ATTN_EXT
    SHIFT,      // ROPE in place over all of K
};

// Classifies a node. A node that touches a served cache in a way KVarN does not serve demotes that layer first.
NodeKind classify(const ggml_tensor * node);

// Micro-batches of this process that failed for want of memory.
uint64_t failed_batches();

// Writes the rows of `node`. `attention` (may be null) is the node that will read them: its mask says which sequences the
// rows belong to. GGML_STATUS_ALLOC_FAILED, here and from attend(): there is no memory; the micro-batch has left no trace in
// the cache, as the host takes its tokens back too.
ggml_status write_rows(const ggml_tensor * node, const ggml_tensor * attention);

// True if `node` is attention over the cache tensor that `write` writes.
bool reads_what_is_written(const ggml_tensor * node, const ggml_tensor * write);

// Learns the head counts from an attention node that the host only asks about.
void learn_from_probe(const ggml_tensor * node);

ggml_status attend(const ggml_tensor * node, int n_threads);

ggml_status shift(const ggml_tensor * node, PlainMode & plain);

}  // namespace ggml_kvarn
