/* KVarN: sessions. The rules of kvarn/kvarn.h hold here too.
 *
 * A session holds sequences in the form in which a cache holds them (docs/format/session.md): records, exact rows, what
 * the encoder remembers of queries, and the caller's tokens. A sequence that went through one goes on with the same
 * bits as one that did not. Files are made for being saved to again and again: a save writes what is new since the last
 * one and leaves that one whole until it is complete itself, whatever happens meanwhile. */
#ifndef KVARN_SESSION_H
#define KVARN_SESSION_H

#include <kvarn/kvarn.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A token as its model knows it. The library keeps both numbers and looks at neither. */
typedef struct kvarn_token {
  uint32_t id;
  int32_t position;
} kvarn_token;

/* One sequence of a cache that is to be saved. */
typedef struct kvarn_session_part {
  kvarn_cache* cache;
  uint32_t sequence;
  const kvarn_token* tokens; /* [token_count]; null: ids of 0, positions from 0 on */
  size_t token_count;        /* the length of the sequence; not looked at without tokens */
} kvarn_session_part;

/* What a session is to hold. */
typedef struct kvarn_session_content {
  size_t struct_size;
  const kvarn_session_part* parts; /* [part_count] */
  size_t part_count;               /* at most 64 */
  kvarn_const_buffer model;        /* whatever names the model, at most 64 KiB; compared by whoever loads */
  kvarn_const_buffer metadata;     /* whatever the caller needs to go on, below 4 GiB; written anew with every save */
} kvarn_session_content;
#define KVARN_SESSION_CONTENT_INIT                                 \
  {                                                                \
    sizeof(kvarn_session_content), NULL, 0, {NULL, 0}, { NULL, 0 } \
  }

/* Any of these together, or 0. */
typedef uint32_t kvarn_save_flags;
#define KVARN_SAVE_UNSYNCED 1u /* survives the end of the process, but perhaps no power failure */
#define KVARN_SAVE_COMPACT 2u  /* writes a whole new file, even if little of the old one is out of date */

/* What a save did. */
typedef struct kvarn_save_report {
  size_t struct_size;
  uint64_t commit;        /* number of this save in the file, from 1 */
  uint64_t written_bytes; /* by this call */
  uint64_t file_bytes;
  uint64_t live_bytes; /* what a file with nothing but this save would take */
  uint32_t new_tiles;
  uint32_t is_whole; /* 1: a new file was written beside the old one and took its place; 0: appended */
} kvarn_save_report;
#define KVARN_SAVE_REPORT_INIT \
  { sizeof(kvarn_save_report), 0, 0, 0, 0, 0, 0 }

/* Saves to a file: appends to a session that is there, writes a new one if there is none or if more than half of the
 * file would be out of date. Whatever happens, the file holds the previous save or this one, whole. A cache whose
 * sequences are mapped from this very file stays good. `report` may be null.
 * KVARN_STATUS_OUT_OF_ORDER: a cache is in the middle of a step. KVARN_STATUS_WRITE_FAILED, NO_SPACE, BUSY. The file
 * that is there is no whole session and was left alone: NOT_A_SESSION, UNKNOWN_VERSION, DAMAGED_HEADER, DAMAGED_INDEX.
 * KVARN_STATUS_DAMAGED_RECORD: of a mapped session that a sequence came from. */
KVARN_API kvarn_status kvarn_session_save(const char* path, const kvarn_session_content* content,
                                          kvarn_save_flags flags, kvarn_save_report* report);

/* Takes bytes away. `write` returns KVARN_STATUS_OK to go on and anything else to stop; it may not throw. */
typedef struct kvarn_sink {
  void* context;
  kvarn_status (*write)(void* context, const void* bytes, size_t size);
} kvarn_sink;

/* Gives bytes. `read` fills at most `size` bytes and returns how many, at least one; 0: there are no more. It may not
 * throw. */
typedef struct kvarn_source {
  void* context;
  size_t (*read)(void* context, void* bytes, size_t size);
} kvarn_source;

/* Sends the bytes that kvarn_session_save would write to a new file; *sent, which may be null, is their number.
 * KVARN_STATUS_WRITE_FAILED: the sink stopped. Others as kvarn_session_save. */
KVARN_API kvarn_status kvarn_session_send(const kvarn_session_content* content, const kvarn_sink* sink, uint64_t* sent);

/* An open session: the newest whole save in it. Calls that read it may run at the same time. */
typedef struct kvarn_session kvarn_session;

/* Opens a file by mapping it, and reads its index alone; *session is set on success alone. The file may be saved to
 * while it is open, and its name may go; who shortens it by other means makes readers fail with a signal.
 * KVARN_STATUS_NOT_FOUND, READ_FAILED, NOT_A_SESSION, UNKNOWN_VERSION, DAMAGED_HEADER, NO_COMMIT, DAMAGED_INDEX. */
KVARN_API kvarn_status kvarn_session_open(const char* path, kvarn_session** session);

/* Takes one session from a stream, as kvarn_session_send gives it, and no byte beyond. KVARN_STATUS_TOO_LARGE: it has
 * more than max_bytes; KVARN_STATUS_CUT_SHORT: the source ended. Others as kvarn_session_open. */
KVARN_API kvarn_status kvarn_session_receive(const kvarn_source* source, uint64_t max_bytes, kvarn_session** session);

/* Sequences that were loaded keep what they need of it. Null is allowed. */
KVARN_API void kvarn_session_close(kvarn_session* session);

/* What a session says of itself. */
typedef struct kvarn_session_info {
  size_t struct_size;
  uint32_t version; /* of the format */
  uint32_t part_count;
  uint64_t commit; /* number of the save in its file */
  uint64_t file_bytes;
  uint64_t live_bytes;
  kvarn_const_buffer model; /* both point into the session and are good until it is closed */
  kvarn_const_buffer metadata;
} kvarn_session_info;
#define KVARN_SESSION_INFO_INIT                                       \
  {                                                                   \
    sizeof(kvarn_session_info), 0, 0, 0, 0, 0, {NULL, 0}, { NULL, 0 } \
  }

/* Fills the members of `info` that its struct_size covers. */
KVARN_API kvarn_status kvarn_session_get_info(const kvarn_session* session, kvarn_session_info* info);

/* What a session says of one of its sequences. */
typedef struct kvarn_session_part_info {
  size_t struct_size;
  uint64_t tokens;
  uint32_t layer_count; /* 0: its layers are none that a kvarn_cache can have */
} kvarn_session_part_info;
#define KVARN_SESSION_PART_INFO_INIT \
  { sizeof(kvarn_session_part_info), 0, 0 }

/* Fills the members of `info` that its struct_size covers. */
KVARN_API kvarn_status kvarn_session_get_part(const kvarn_session* session, uint32_t part,
                                              kvarn_session_part_info* info);

/* The configuration and the layers of a cache that a part fits: for kvarn_cache_create. `layers` is [layer_count], that
 * of the part. KVARN_STATUS_OTHER_SHAPE: no kvarn_cache can be like it. */
KVARN_API kvarn_status kvarn_session_get_shape(const kvarn_session* session, uint32_t part, kvarn_cache_config* config,
                                               kvarn_layer* layers, size_t layer_count);

/* Copies the tokens of a part, [token_count], as many as it has. KVARN_STATUS_DAMAGED_TILE. */
KVARN_API kvarn_status kvarn_session_get_tokens(const kvarn_session* session, uint32_t part, kvarn_token* tokens,
                                                size_t token_count);

/* A number that is one of the KVARN_RECORDS_ constants: what a load does with records. Everything else is checked and
 * copied in any case. */
typedef uint32_t kvarn_records;
#define KVARN_RECORDS_COPIED 1u /* checked now, copied into the cache */
#define KVARN_RECORDS_MAPPED 2u /* left in the file, read and checked when attention asks for them */

/* Makes an empty sequence of a cache the one that was saved. Layers, widths, tile length and sink must be those of the
 * session; tail, level and limits may differ. It may come from another program, as long as its tokens lie as a
 * kvarn_cache lays them. When the call fails the sequence is empty.
 * KVARN_STATUS_INVALID_ARGUMENT: there is no such part or sequence, or it is not empty. KVARN_STATUS_OTHER_SHAPE.
 * KVARN_STATUS_FULL: more tokens than a sequence may have. KVARN_STATUS_OUT_OF_ORDER: a step is at hand.
 * KVARN_STATUS_OUT_OF_MEMORY, DAMAGED_TILE, DAMAGED_RECORD, DAMAGED_ROWS, DAMAGED_HISTORY, DAMAGED_SAMPLES. */
KVARN_API kvarn_status kvarn_session_load(const kvarn_session* session, uint32_t part, kvarn_cache* cache,
                                          uint32_t sequence, kvarn_records records);

/* Checks every byte that a load and attention would ever use. The same kinds of damage as kvarn_session_load. */
KVARN_API kvarn_status kvarn_session_verify(const kvarn_session* session);

#ifdef __cplusplus
}
#endif

#endif
