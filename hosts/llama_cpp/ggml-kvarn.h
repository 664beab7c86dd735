// What libggml-kvarn offers beyond the ggml backend interface: functions found by name through the registry
// (ggml_backend_reg_get_proc_address). C, no dependency; structs grow at the end and carry their size.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Where the bytes of all live KVarN caches of this process are. All figures in bytes unless named otherwise.
struct ggml_kvarn_account {
    uint32_t struct_size;        // in: sizeof(struct ggml_kvarn_account) of the caller
    uint32_t caches;             // live cache buffers
    uint64_t record_bytes;       // sealed records
    uint64_t open_row_bytes;     // exact rows: sink, tail, tiles that are not full (blocks of 16 tokens)
    uint64_t slack_bytes;        // taken from the system, not in use (free slots of slabs)
    uint64_t map_bytes;          // cell maps and attention plans
    uint64_t scratch_bytes;      // working memory of attention and encoding
    uint64_t plain_bytes;        // tensors that are not compressed (plain mode, recurrent state), nominal
    uint64_t f16_bytes;          // what plain f16 rows of the cells in use would take
    uint64_t cells_in_use;       // cells that hold a token, over all streams and caches
    uint64_t sealed_tokens;      // of them in sealed tiles
    uint64_t moment_bytes;       // what is kept of queries (level best)
};

// "ggml_backend_kvarn_account": fills the account; false if struct_size is too small.
typedef bool (*ggml_kvarn_account_t)(struct ggml_kvarn_account * account);

// No exact tail at all: tiles are sealed before the micro-batch that completes them attends. For the evaluation of codecs.
#define GGML_KVARN_TAIL_NONE (-2)

// How a cache is to be compressed. NULL or -1: as the environment says.
struct ggml_kvarn_settings {
    uint32_t struct_size;        // in: sizeof(struct ggml_kvarn_settings) of the caller
    const char * preset;         // KVARN_PRESET: "k4v4", "k4v2", ..., "f16"
    const char * level;          // KVARN_LEVEL: "official", "scaled", "fast", "best"; by default best below 8 bits
    const char * codec;          // KVARN_CODEC: "kvarn"; "q8_0", "q5_0", "q4_0" or "q8_0/q4_0": rows are rounded as the
                                 // host's cache of that type would round them and stay in f16, to compare codecs
    int64_t sink_tokens;         // KVARN_SINK
    int64_t tail_tokens;         // KVARN_TAIL: tokens, or GGML_KVARN_TAIL_NONE
};

// "ggml_backend_kvarn_configure": settings for cache buffers made from now on. Returns NULL, or one line that says what is
// wrong (nothing is changed then), valid until the next call on this thread.
typedef const char * (*ggml_kvarn_configure_t)(const struct ggml_kvarn_settings * settings);

#ifdef __cplusplus
}
#endif
