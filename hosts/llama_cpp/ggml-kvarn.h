// What libggml-kvarn offers beyond the ggml backend interface: functions found by name through the registry
// (ggml_backend_reg_get_proc_address). C, no dependency; structs grow at the end and carry their size.
#pragma once

#include <stdbool.h>
#include <stddef.h>
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
    uint64_t limit_bytes;        // cap on records, exact rows and slack of all caches (KVARN_LIMIT); 0: none
    uint64_t failed_batches;     // micro-batches that failed for want of memory
    uint64_t mapped_bytes;       // sealed records that are read from a session's file, in the page cache
};

// "ggml_backend_kvarn_account": fills the account; false if struct_size is too small.
typedef bool (*ggml_kvarn_account_t)(struct ggml_kvarn_account * account);

// No exact tail at all: tiles are sealed before the micro-batch that completes them attends. For the evaluation of codecs.
#define GGML_KVARN_TAIL_NONE (-2)

// How a cache is to be compressed. NULL or -1: as the environment says.
struct ggml_kvarn_settings {
    uint32_t struct_size;        // in: sizeof(struct ggml_kvarn_settings) of the caller
    const char * preset;         // KVARN_PRESET: "k4v4", "k4v2", ..., "f16"
    const char * level;          // KVARN_LEVEL: "official", "scaled", "fast", "best", "plain"; by default best below 8 bits
    const char * codec;          // KVARN_CODEC: "kvarn"; "q8_0", "q5_0", "q4_0" or "q8_0/q4_0": rows are rounded as the
                                 // host's cache of that type would round them and stay in f16, to compare codecs
    int64_t sink_tokens;         // KVARN_SINK
    int64_t tail_tokens;         // KVARN_TAIL: tokens, or GGML_KVARN_TAIL_NONE
    int64_t limit_bytes;         // KVARN_LIMIT: cap on the memory of all caches of the process together, 0: none
    const char * fields;         // KVARN_FIELDS: "half" or "byte"
    int64_t tile_tokens;         // KVARN_TILE: a multiple of 16 from 16 to 256
};

// "ggml_backend_kvarn_configure": settings for cache buffers made from now on. Returns NULL, or one line that says what is
// wrong (nothing is changed then), valid until the next call on this thread.
typedef const char * (*ggml_kvarn_configure_t)(const struct ggml_kvarn_settings * settings);

// One layer of a model as the host lays out its cache.
struct ggml_kvarn_layer {
    uint32_t layer;
    uint32_t streams;
    uint32_t cells;              // of one stream
    uint32_t query_heads;        // 0: not compressed, in plain memory of plain_bytes
    uint32_t kv_heads;
    uint32_t k_dim;
    uint32_t v_dim;
    uint32_t window_tokens;      // tokens of its sequence that one token sees, 0: all. Never set by a probe: the host knows
    uint64_t plain_bytes;
};

// "ggml_backend_kvarn_probe": copies the layers of contexts that the host planned without memory (llama_model_params.no_alloc)
// since the last call to layers[capacity] and forgets them; returns how many there are.
typedef uint32_t (*ggml_kvarn_probe_t)(struct ggml_kvarn_layer * layers, uint32_t capacity);

// Sequences of one length that share no tokens.
struct ggml_kvarn_load {
    uint32_t struct_size;        // in: sizeof(struct ggml_kvarn_load) of the caller
    uint32_t n_layers;
    const struct ggml_kvarn_layer * layers;
    const struct ggml_kvarn_settings * settings;
    uint64_t sequences;
    uint64_t tokens;             // of each sequence
    uint64_t batch_tokens;       // of each sequence, the newest: those of the micro-batch at work, 1 while it generates
};

// "ggml_backend_kvarn_plan": what caches of these layers will take, as ggml_backend_kvarn_account would say it. Nothing is made.
// Returns NULL, or one line that says what is wrong, valid until the next call on this thread.
typedef const char * (*ggml_kvarn_plan_t)(const struct ggml_kvarn_load * load, struct ggml_kvarn_account * account);

// A sequence of a context in a file of KVarN's own (docs/format/session.md): its compressed bytes, appended to what the file has of
// an earlier save, and read back from the mapped file as attention asks for them.
struct ggml_kvarn_session_save {
    uint32_t struct_size;        // in: sizeof(struct ggml_kvarn_session_save) of the caller
    const char * path;
    const void * model;          // names the model, whoever loads compares it; at most 64 KiB
    size_t model_size;
    const void * metadata;       // what the caller needs to go on, written anew with every save
    size_t metadata_size;
    const int32_t * tokens;      // of the sequence, for those who look into the file
    uint64_t n_tokens;
    uint64_t written_bytes;      // out
    uint64_t file_bytes;         // out
};

struct ggml_kvarn_session;

struct ggml_kvarn_session_content {
    const void * model;          // all pointers are good until the session is closed
    size_t model_size;
    const void * metadata;
    size_t metadata_size;
    uint64_t file_bytes;
};

// What fails returns one line that says why, valid until the next call on this thread.
struct ggml_kvarn_sessions {
    uint32_t struct_size;
    // While a transfer is open on a thread, the host's state calls there move no rows of compressed caches, they tell which cells
    // a sequence has: llama_state_seq_get_data before save() (its buffer must be zeroed: rows stay as they are), and
    // llama_state_seq_set_data before load().
    void (*begin_transfer)(void);
    void (*end_transfer)(void);
    const char * (*save)(struct ggml_kvarn_session_save * save);
    const char * (*open)(const char * path, struct ggml_kvarn_session ** session);
    void (*describe)(const struct ggml_kvarn_session * session, struct ggml_kvarn_session_content * content);
    // Fills the cells of the transfer. On an error the sequence's rows are undefined: the caller removes it.
    const char * (*load)(const struct ggml_kvarn_session * session);
    // The cache may go on reading the file.
    void (*close)(struct ggml_kvarn_session * session);
};

// "ggml_backend_kvarn_sessions"
typedef const struct ggml_kvarn_sessions * (*ggml_kvarn_sessions_t)(void);

#ifdef __cplusplus
}
#endif
