/* KVarN: a compressed KV cache for transformer models. The C interface, C99.
 *
 * Three things are here. The CODEC turns tiles of keys or values into tile records and back
 * (docs/format/tile_record.md); it holds no state. The CACHE keeps the keys and values of all layers of a model for
 * many sequences: rows go in, old ones become records, attention runs over what is there; sequences can be cut, forked
 * and dropped. SESSIONS (kvarn/session.h, which this header includes) are sequences as files and streams: the bytes
 * that the cache holds, to be resumed by another process.
 *
 * RULES FOR ALL CALLS
 *
 * Errors: A call that can fail returns a kvarn_status; KVARN_STATUS_OK is 0. A call that returns anything else has
 * changed nothing, unless it says otherwise. A null pointer where none is allowed, a struct of a wrong size, a value
 * outside its range and data that is not aligned for its type are KVARN_STATUS_INVALID_ARGUMENT in every call. Nothing
 * is printed, no environment variable is read, no exception leaves the library, no signal handler is set.
 *
 * Threads: The library starts none. Calls on different caches and all codec calls may run at the same time; calls on
 * one cache may not. Work is spread over the caller's threads through a kvarn_runner. Results do not depend on the
 * number of threads, bit for bit.
 *
 * Memory: What a call reads or writes through its pointers belongs to the caller and is not kept after it returns;
 * exceptions say so. Memory that a call writes may not overlap with any other memory it is given.
 *
 * Structs: Structs that may grow start with struct_size, which the caller sets to sizeof the struct, most easily with
 * the _INIT macro beside it. A new version of the library adds members at the end, and a member that is zero or missing
 * means what the library did before. A struct that is larger than the library knows is accepted if all it does not know
 * is zero. Structs without struct_size never change.
 *
 * Units: A "value" is one number of a row; strides count values, not bytes; sizes of memory are in bytes and say so.
 *
 * Versions: A symbol is never removed and never changes its meaning within a major version (from 1.0 on).
 */
#ifndef KVARN_KVARN_H
#define KVARN_KVARN_H

#include <kvarn/version.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define KVARN_API __attribute__((visibility("default")))
#else
#define KVARN_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------- the library itself */

/* What became of a call. Never a truth value: 0 is success. */
typedef enum kvarn_status {
  KVARN_STATUS_OK = 0,
  KVARN_STATUS_INVALID_ARGUMENT = 1, /* outside the documented range */
  KVARN_STATUS_NON_FINITE = 2,       /* a NaN or an infinity where a record must be finite */
  KVARN_STATUS_OUT_OF_RANGE = 3,     /* a scale does not fit the half-precision fields of a record */
  KVARN_STATUS_OUT_OF_MEMORY = 4,    /* the system, the allocator or the limit of a cache refuses */
  KVARN_STATUS_CORRUPT = 5,          /* bytes that no encoder wrote */
  KVARN_STATUS_OUT_OF_ORDER = 6,     /* a call that the state of the cache does not allow now */
  KVARN_STATUS_FULL = 7,             /* more tokens than the cache was made for */
  /* Of sessions alone. */
  KVARN_STATUS_NOT_FOUND = 8,        /* there is no such file */
  KVARN_STATUS_READ_FAILED = 9,      /* the system does not let it be read */
  KVARN_STATUS_WRITE_FAILED = 10,    /* the system does not let it be written, or the sink stopped */
  KVARN_STATUS_NO_SPACE = 11,        /* the file system is full */
  KVARN_STATUS_BUSY = 12,            /* somebody else is saving to this file */
  KVARN_STATUS_NOT_A_SESSION = 13,   /* it does not begin as a session does */
  KVARN_STATUS_UNKNOWN_VERSION = 14, /* a session of a version of the format that this library does not know */
  KVARN_STATUS_DAMAGED_HEADER = 15,
  KVARN_STATUS_NO_COMMIT = 16,       /* no whole save is in it */
  KVARN_STATUS_DAMAGED_INDEX = 17,   /* of the newest save */
  KVARN_STATUS_DAMAGED_TILE = 18,    /* how a tile lies and what it holds */
  KVARN_STATUS_DAMAGED_RECORD = 19,  /* codes and scales of a sealed tile */
  KVARN_STATUS_DAMAGED_ROWS = 20,    /* exact rows */
  KVARN_STATUS_DAMAGED_HISTORY = 21, /* what is remembered of queries */
  KVARN_STATUS_DAMAGED_SAMPLES = 22, /* queries of a tile that is not sealed */
  KVARN_STATUS_OTHER_SHAPE = 23,     /* the cache has other layers, widths, tiles or sink than the session */
  KVARN_STATUS_TOO_LARGE = 24,       /* more bytes than the receiver takes */
  KVARN_STATUS_CUT_SHORT = 25        /* the sender stopped in the middle */
} kvarn_status;

/* English for a status, lower case, without a full stop; "unknown status" for any other number. Never null; valid as
 * long as the library is loaded. */
KVARN_API const char* kvarn_status_text(kvarn_status status);

/* The version of the library that runs: KVARN_VERSION_NUMBER when it was built, and the same as "major.minor.patch".
 * A program that was built with newer headers compares. */
KVARN_API uint32_t kvarn_version_number(void);
KVARN_API const char* kvarn_version_text(void);

/* The kernels in use: "avx512vnni", "avx512", "avx2" or "baseline" on x86-64; "neon_i8mm", "neon_dotprod" or "neon" on
 * 64-bit Arm; "baseline" elsewhere. The best that the processor has, unless another one was chosen. */
KVARN_API const char* kvarn_kernels_name(void);

/* Chooses kernels by name, for the whole process; for tests and comparisons. No other call may run at the same time.
 * KVARN_STATUS_INVALID_ARGUMENT: there are none of this name, or the processor cannot run them. */
KVARN_API kvarn_status kvarn_kernels_choose(const char* name);

/* ---------------- what callers bring */

/* A number that is one of the KVARN_TYPE_ constants. */
typedef uint32_t kvarn_type;
#define KVARN_TYPE_F16 1u  /* IEEE 754 binary16, native byte order, aligned to 2 bytes */
#define KVARN_TYPE_F32 2u  /* IEEE 754 binary32, native byte order, aligned to 4 bytes */
#define KVARN_TYPE_BF16 3u /* the upper half of a binary32, aligned to 2 bytes; only the codec takes it */

/* A number that is one of the KVARN_SIDE_ constants. */
typedef uint32_t kvarn_side;
#define KVARN_SIDE_K 1u /* keys, after the position encoding */
#define KVARN_SIDE_V 2u /* values */

/* A number that is one of the KVARN_LEVEL_ constants: how codes are chosen. All levels write the same format. */
typedef uint32_t kvarn_level;
#define KVARN_LEVEL_DEFAULT 0u  /* best below 8 bits, fast at 8 */
#define KVARN_LEVEL_OFFICIAL 1u /* the published method of KVarN (arXiv 2606.03458) */
#define KVARN_LEVEL_SCALED 2u   /* the same after bringing every tile to one size */
#define KVARN_LEVEL_FAST 3u     /* a line for each row that neither shrinks nor stretches it */
#define KVARN_LEVEL_BEST 4u     /* fast, and rows make good the rounding errors of others; keys: as queries see them */
#define KVARN_LEVEL_PLAIN 5u    /* fast without a search: where encoding must keep up with a wire or a drive */

/* A number that is one of the KVARN_FIELDS_ constants: what a scale or a zero in a record takes, which is the version
 * of the record. Bytes are written at FAST and BEST, which choose codes for the fields as they are stored; they lose
 * hardly more below 8 bits, and take 0.19 bits a value less at 128 channels and tiles of 128 tokens. Version 2 is
 * provisional. */
typedef uint32_t kvarn_fields;
#define KVARN_FIELDS_HALF 0u /* half precision: version 1 */
#define KVARN_FIELDS_BYTE 1u /* one byte: version 2 */

/* Rows of tokens in the caller's memory: value (token, head, channel) is at data[token * token_stride + head *
 * head_stride + channel], so the channels of one head lie side by side. Strides are at least 0 and count values.
 * [tokens, heads, dim]: token_stride = heads * dim, head_stride = dim. [heads, tokens, dim]: token_stride = dim,
 * head_stride = tokens * dim. */
typedef struct kvarn_rows {
  void* data;
  kvarn_type type;
  size_t token_stride;
  size_t head_stride;
} kvarn_rows;

/* The same, only read. */
typedef struct kvarn_const_rows {
  const void* data;
  kvarn_type type;
  size_t token_stride;
  size_t head_stride;
} kvarn_const_rows;

/* Plain memory. */
typedef struct kvarn_buffer {
  void* data;
  size_t bytes;
} kvarn_buffer;

/* The same, only read. */
typedef struct kvarn_const_buffer {
  const void* data;
  size_t bytes;
} kvarn_const_buffer;

/* A piece of work. */
typedef void (*kvarn_task)(void* arg, size_t item, uint32_t worker);

/* The caller's threads. `run` calls task(arg, item, worker) once for every item below `items`, in any order and on any
 * thread, with worker < workers and never two calls at once for the same worker, and returns when all are done. It is
 * called on the thread that called the library, possibly several times in one call. Neither it nor the task may throw.
 * Memory for scratch grows with `workers`. A null runner, or one whose `run` is null, means: the calling thread alone.
 */
typedef struct kvarn_runner {
  size_t struct_size;
  void* context;
  uint32_t workers; /* 1 to 1024 */
  void (*run)(void* context, size_t items, kvarn_task task, void* arg);
} kvarn_runner;
#define KVARN_RUNNER_INIT \
  { sizeof(kvarn_runner), NULL, 1, NULL }

/* The caller's memory. `allocate` returns `bytes` of memory at a multiple of `alignment` (a power of two, at most 64),
 * content undefined, or null. `release` takes back one such block, with the same `bytes`. Both are called on the thread
 * that called the library and must work until the cache that uses them is destroyed; neither may throw. */
typedef struct kvarn_allocator {
  size_t struct_size;
  void* context;
  void* (*allocate)(void* context, size_t bytes, size_t alignment);
  void (*release)(void* context, void* memory, size_t bytes);
} kvarn_allocator;
#define KVARN_ALLOCATOR_INIT \
  { sizeof(kvarn_allocator), NULL, NULL, NULL }

/* ---------------- the codec */

/* A batch of tiles of one side: `tiles` times `tokens` tokens in order, of `heads` heads. Each head of each tile
 * becomes one record. Records lie one after the other without gaps, all heads of a tile together: that of tile t and
 * head h is number t * heads + h. */
typedef struct kvarn_codec {
  size_t struct_size;
  kvarn_side side;
  uint32_t bits;   /* of a code: 8, 6, 5, 4, 3 or 2 */
  uint32_t tokens; /* of a tile: a multiple of 16, from 16 to 1024; caches use 128 */
  uint32_t dim;    /* of a head: a multiple of 16, from 16 to 1024 */
  uint32_t heads;  /* at least 1 */
  uint32_t tiles;  /* at least 1 */
  kvarn_level level;
  kvarn_fields fields;
} kvarn_codec;
#define KVARN_CODEC_INIT \
  { sizeof(kvarn_codec), KVARN_SIDE_K, 4, 128, 128, 1, 1, KVARN_LEVEL_DEFAULT, KVARN_FIELDS_HALF }

/* What a batch takes. */
typedef struct kvarn_codec_sizes {
  size_t struct_size;
  size_t record_bytes;         /* of one record */
  size_t records_bytes;        /* of all of them */
  size_t encode_scratch_bytes; /* for one worker; w workers take w times as much. Needs no alignment. */
  size_t decode_scratch_bytes; /* likewise */
} kvarn_codec_sizes;
#define KVARN_CODEC_SIZES_INIT \
  { sizeof(kvarn_codec_sizes), 0, 0, 0, 0 }

/* Sizes of a batch; fills the members of `sizes` that its struct_size covers. KVARN_STATUS_INVALID_ARGUMENT also if a
 * size does not fit size_t. */
KVARN_API kvarn_status kvarn_codec_measure(const kvarn_codec* codec, kvarn_codec_sizes* sizes);

/* Encodes rows [tiles * tokens, heads, dim], F16, F32 or BF16. F32 and BF16 are rounded to half precision first, to
 * nearest even, and beyond +-65504 to +-65504. Writes sizes.records_bytes to `records`; `scratch` is at least
 * encode_scratch_bytes times the runner's workers. Allocates nothing. The same rows give the same bytes on every
 * machine and with any instruction set. Keys at KVARN_LEVEL_BEST are encoded as at FAST: queries are known to caches
 * alone. KVARN_STATUS_NON_FINITE: a NaN or an infinity in the rows. KVARN_STATUS_OUT_OF_RANGE: rows that no record can
 * hold, at OFFICIAL and SCALED alone. With both of them `records` holds anything. */
KVARN_API kvarn_status kvarn_codec_encode(const kvarn_codec* codec, const kvarn_const_rows* rows, kvarn_buffer records,
                                          kvarn_buffer scratch, const kvarn_runner* runner);

/* Decodes records to rows [tiles * tokens, heads, dim], F16, F32 or BF16, each value rounded to half precision as the
 * format says, and for BF16 once more, to nearest even. `scratch` is at least decode_scratch_bytes times the runner's
 * workers. Allocates nothing. `level` is ignored. Defined for any bytes of the right size, and touches none outside;
 * bytes from elsewhere: see kvarn_codec_validate. */
KVARN_API kvarn_status kvarn_codec_decode(const kvarn_codec* codec, kvarn_const_buffer records, const kvarn_rows* rows,
                                          kvarn_buffer scratch, const kvarn_runner* runner);

/* Whether bytes are records of this batch. KVARN_STATUS_CORRUPT: they are not; decoding them could give values that are
 * not finite. */
KVARN_API kvarn_status kvarn_codec_validate(const kvarn_codec* codec, kvarn_const_buffer records);

/* The checksum of bytes that leave memory: XXH3, 64 bits, seed 0, as XXH3_64bits() of xxHash 0.8 gives it. Finds
 * damage, not forgery. Records have none of their own: what holds them keeps it. A null `data` counts as no bytes. */
KVARN_API uint64_t kvarn_checksum(kvarn_const_buffer bytes);

/* ---------------- the cache */

/* The keys and values of many sequences in all layers of one model. Sequences are numbered from 0 and exist from the
 * start, all of them empty. */
typedef struct kvarn_cache kvarn_cache;

/* How a cache compresses. A tile of a sequence is sealed, that is: becomes records, once it is full, behind the sink,
 * and all of it older than the tail when a step begins; layers take turns within the 16 tokens after that. */
typedef struct kvarn_cache_config {
  size_t struct_size;
  uint32_t k_bits; /* codes of keys: 8, 6, 5, 4, 3 or 2; 16 on both sides: every row stays as it was written */
  uint32_t v_bits; /* codes of values */
  kvarn_level level;
  uint32_t sink_tokens; /* the first tokens of a sequence, rounded up to whole tiles, stay exact */
  uint32_t tail_tokens; /* so many tokens before those of a step stay exact, and the step's own */
  uint32_t tile_tokens; /* a multiple of 16, from 16 to 256 */
  kvarn_fields fields;  /* of the records that are written, and of those that a session brings */
} kvarn_cache_config;
#define KVARN_CACHE_CONFIG_INIT \
  { sizeof(kvarn_cache_config), 4, 4, KVARN_LEVEL_DEFAULT, 128, 128, 128, KVARN_FIELDS_HALF }

/* Sets widths, and for names that have one the tail, from a name: "f16", "k4v4", "k4v2" ... with 8, 6, 5, 4, 3 or 2 for
 * each side, or "near-lossless" (6 bits), "balanced" (4), "small" (3), "smallest" (2). KVARN_STATUS_INVALID_ARGUMENT
 * for any other name. */
KVARN_API kvarn_status kvarn_cache_config_preset(kvarn_cache_config* config, const char* name);

/* One layer's attention: query head h reads KV head h / (heads / kv_heads). */
typedef struct kvarn_layer {
  uint32_t heads;    /* of queries: a multiple of kv_heads, at most 1024 */
  uint32_t kv_heads; /* at least 1 */
  uint32_t dim_k;    /* channels of a key and a query: a multiple of 16, from 16 to 1024 */
  uint32_t dim_v;    /* channels of a value: likewise */
} kvarn_layer;

/* How much a cache is made for. Memory is taken as it is needed. */
typedef struct kvarn_cache_limits {
  size_t struct_size;
  uint32_t sequences; /* 1 to 65536 */
  uint32_t tokens;    /* of one sequence: 1 to 2^30 */
  uint64_t bytes;     /* of rows and records, with what they take beside; 0: no limit. Sealing may go beyond it by the
                         records of one layer at a time, which take the place of larger rows. */
} kvarn_cache_limits;
#define KVARN_CACHE_LIMITS_INIT \
  { sizeof(kvarn_cache_limits), 1, 4096, 0 }

/* Makes a cache; *cache is set on success alone. `layers` is [layer_count], 1 to 4096. A null allocator, or one whose
 * functions are null: memory comes from the system. Rows and records come from the allocator, in blocks of about
 * 256 KiB; lists, samples of queries and scratch come from the C++ heap.
 * KVARN_STATUS_OUT_OF_MEMORY: no memory for the lists. */
KVARN_API kvarn_status kvarn_cache_create(const kvarn_cache_config* config, const kvarn_layer* layers,
                                          uint32_t layer_count, const kvarn_cache_limits* limits,
                                          const kvarn_allocator* allocator, kvarn_cache** cache);

/* Gives back all memory. Null is allowed. */
KVARN_API void kvarn_cache_destroy(kvarn_cache* cache);

/* Empties all sequences. KVARN_STATUS_OUT_OF_ORDER: a step is at hand. */
KVARN_API kvarn_status kvarn_cache_clear(kvarn_cache* cache);

/* A cache whose small lists could not grow for want of heap memory has lost track: from then on every call but
 * kvarn_cache_destroy returns KVARN_STATUS_OUT_OF_MEMORY. The limit, the allocator and the memory for rows and records
 * never cause this. */

/* ---------------- one step
 *
 * A step adds tokens to one or more sequences:
 *
 *   kvarn_step_begin;  for each layer { kvarn_step_append; kvarn_step_attend; }  kvarn_step_commit
 *
 * Tokens of a step are numbered from 0, part by part in the order of `parts`. Until the commit they belong to no
 * sequence, and kvarn_step_cancel makes them vanish. Attention of a layer may be left out. */

/* The tokens that a step adds to one sequence. */
typedef struct kvarn_step_part {
  uint32_t sequence;
  uint32_t tokens; /* at least 1 */
} kvarn_step_part;

/* Begins a step; takes all memory that its rows need. `parts` is [part_count], each sequence at most once.
 * KVARN_STATUS_OUT_OF_ORDER: a step is at hand. KVARN_STATUS_FULL: a sequence would have more tokens than the limit.
 * KVARN_STATUS_OUT_OF_MEMORY. KVARN_STATUS_CORRUPT: the sequence was cut inside a tile of a mapped session, which is
 * damaged. */
KVARN_API kvarn_status kvarn_step_begin(kvarn_cache* cache, const kvarn_step_part* parts, size_t part_count);

/* Writes the rows of all tokens of the step in one layer: k is [tokens, kv_heads, dim_k], v is [tokens, kv_heads,
 * dim_v], both of the same type. F16 is kept as it is, bit for bit; F32 is rounded to half precision, to nearest even,
 * and beyond +-65504, infinities too, to +-65504. A NaN, or an infinity in F16, is kept, and its tile is never sealed.
 * Seals what is due in this layer. Writing the rows again replaces them.
 * KVARN_STATUS_OUT_OF_ORDER: no step is at hand. */
KVARN_API kvarn_status kvarn_step_append(kvarn_cache* cache, uint32_t layer, const kvarn_const_rows* k,
                                         const kvarn_const_rows* v, const kvarn_runner* runner);

/* How attention is computed. The score of a query and a key is scale * q.k; with soft_cap c > 0 then c * tanh(score /
 * c). A query sees its own token and those before it in its sequence. */
typedef struct kvarn_query {
  size_t struct_size;
  float scale;              /* 0: 1 / sqrt(dim_k) */
  float soft_cap;           /* 0: none */
  uint32_t window_tokens;   /* a query sees only the newest so many tokens, its own included; 0: all */
  const float* sink_logits; /* [heads], one more logit in each softmax that has no value; null: none */
} kvarn_query;
#define KVARN_QUERY_INIT \
  { sizeof(kvarn_query), 0.0f, 0.0f, 0, NULL }

/* Attention of all tokens of the step in one layer: q is [tokens, heads, dim_k], out is [tokens, heads, dim_v], both
 * F32. Call it after kvarn_step_append of the same layer. At KVARN_LEVEL_BEST the queries also tell the encoder of keys
 * what to keep; layers without this call are encoded as at FAST. The result depends on the tokens and steps of each
 * sequence alone, not on other sequences, forks or threads. KVARN_STATUS_OUT_OF_ORDER: no step is at hand, or the layer
 * has no rows of it. KVARN_STATUS_CORRUPT: a record of a mapped session that is needed is damaged; nothing was
 * computed.
 */
KVARN_API kvarn_status kvarn_step_attend(kvarn_cache* cache, uint32_t layer, const kvarn_query* query,
                                         const kvarn_const_rows* q, const kvarn_rows* out, const kvarn_runner* runner);

/* The tokens of the step belong to their sequences now. KVARN_STATUS_OUT_OF_ORDER: no step is at hand, or a layer has
 * no rows of it. */
KVARN_API kvarn_status kvarn_step_commit(kvarn_cache* cache);

/* The step never was, but what it sealed stays sealed. Without a step it does nothing. */
KVARN_API kvarn_status kvarn_step_cancel(kvarn_cache* cache);

/* ---------------- sequences
 *
 * Calls that change a sequence return KVARN_STATUS_OUT_OF_ORDER while a step is at hand. */

/* Tokens of a sequence, those of a step at hand not counted. */
KVARN_API kvarn_status kvarn_sequence_length(const kvarn_cache* cache, uint32_t sequence, uint32_t* tokens);

/* Leaves the first `tokens` tokens, at most as many as there are. Rows that are exact stay exact: so the tail, and
 * every cut at the end of a tile. Of a sealed tile that is cut in the middle, the rows that stay keep the values of the
 * record and are encoded a second time when the tile is full and due again. */
KVARN_API kvarn_status kvarn_sequence_truncate(kvarn_cache* cache, uint32_t sequence, uint32_t tokens);

/* Makes the empty sequence `to` begin with all tokens of `from`. Costs one list entry a tile; all bytes are shared
 * until one of them goes on, and then all but a block of 16 rows. KVARN_STATUS_INVALID_ARGUMENT: `to` is not empty or
 * is `from`. */
KVARN_API kvarn_status kvarn_sequence_fork(kvarn_cache* cache, uint32_t from, uint32_t to);

/* Empties a sequence. What other sequences share stays. */
KVARN_API kvarn_status kvarn_sequence_drop(kvarn_cache* cache, uint32_t sequence);

/* Which rows to read. */
typedef struct kvarn_row_range {
  uint32_t layer;
  kvarn_side side;
  uint32_t first; /* the number of a token in its sequence */
  uint32_t count;
} kvarn_row_range;

/* Copies rows to the caller, [count, kv_heads, dim], F16 or F32: exact rows as they were written (as half precision),
 * others as their record says. May be called during a step, for tokens before it. KVARN_STATUS_CORRUPT: a record of a
 * mapped session is damaged. */
KVARN_API kvarn_status kvarn_sequence_read(const kvarn_cache* cache, uint32_t sequence, const kvarn_row_range* range,
                                           const kvarn_rows* rows);

/* What to make smaller, and how far. */
typedef struct kvarn_shrink {
  size_t struct_size;
  const uint32_t* sequences; /* [sequence_count], each at most once; those named first give way first */
  size_t sequence_count;
  uint64_t bytes;       /* stop when rows and records, with what they take beside, take no more than this */
  uint32_t lowest_bits; /* no tile gets fewer bits than this: 8, 6, 5, 4, 3 or 2 */
} kvarn_shrink;
#define KVARN_SHRINK_INIT \
  { sizeof(kvarn_shrink), NULL, 0, 0, 2 }

/* Makes old tiles of some sequences smaller when memory is short: first to 8 bits a code, then to 4, then to 2, and on
 * each step the oldest tiles first. In a cache of exact rows (16 bits) full tiles behind sink and tail are sealed for
 * it. A tile that is shared with a sequence which is not named stays as it is, and so does one that some layer has not
 * sealed yet, or that a mapped session holds. The same calls give the same bytes. Needs memory for one layer's rows of
 * one tile at a time, beyond the limit. KVARN_STATUS_FULL: that was not enough; what was made smaller stays so.
 * KVARN_STATUS_OUT_OF_MEMORY: likewise. KVARN_STATUS_OUT_OF_ORDER: a step is at hand. */
KVARN_API kvarn_status kvarn_cache_shrink(kvarn_cache* cache, const kvarn_shrink* shrink, const kvarn_runner* runner);

/* ---------------- accounts */

/* Where the bytes of a cache are. What sequences share counts once. */
typedef struct kvarn_cache_account {
  size_t struct_size;
  uint64_t tokens;        /* of all sequences */
  uint64_t stored_tokens; /* rows of tokens in memory: shared ones once */
  uint64_t record_bytes;  /* sealed */
  uint64_t row_bytes;     /* exact */
  uint64_t slack_bytes;   /* taken for rows and records, not in use */
  uint64_t query_bytes;   /* what the encoder remembers of queries */
  uint64_t list_bytes;    /* which tile is where */
  uint64_t scratch_bytes; /* working memory that is kept between calls */
  uint64_t f16_bytes;     /* what all sequences would take as half-precision rows with nothing shared */
  uint64_t mapped_bytes;  /* records of mapped sessions: of their files, in memory only while they are read */
} kvarn_cache_account;
#define KVARN_CACHE_ACCOUNT_INIT \
  { sizeof(kvarn_cache_account), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }

/* Fills the members of `account` that its struct_size covers. Takes time that grows with the tiles of the cache. */
KVARN_API kvarn_status kvarn_cache_get_account(const kvarn_cache* cache, kvarn_cache_account* account);

/* Where the bytes of one sequence are. What sequences share counts for each of them. */
typedef struct kvarn_sequence_account {
  size_t struct_size;
  uint64_t tokens;
  uint64_t sealed_tokens; /* in tiles that every layer has sealed */
  uint64_t held_bytes;    /* of records and rows, and what is remembered of queries; not records of mapped sessions */
  uint64_t own_bytes;     /* of these, what dropping the sequence gives back */
  uint64_t f16_bytes;     /* the same tokens as half-precision rows */
} kvarn_sequence_account;
#define KVARN_SEQUENCE_ACCOUNT_INIT \
  { sizeof(kvarn_sequence_account), 0, 0, 0, 0, 0 }

/* The same for one sequence. */
KVARN_API kvarn_status kvarn_sequence_get_account(const kvarn_cache* cache, uint32_t sequence,
                                                  kvarn_sequence_account* account);

#ifdef __cplusplus
}
#endif

#include <kvarn/session.h>

#endif
