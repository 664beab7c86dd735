/* A context that outlives its process: `resume FILE` reads a prompt and saves it the first time; every other time it
 * maps the file and goes on, without computing the prompt again. Either way it tries two continuations of the context,
 * as forks, which come out the same bit by bit; when it has resumed, it saves the longer one to the file. The rows
 * stand for what a model computes. */
#include <kvarn/kvarn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(call)                                                   \
  do {                                                                \
    const kvarn_status checked = (call);                              \
    if (checked != KVARN_STATUS_OK) {                                 \
      fprintf(stderr, "%s: %s\n", #call, kvarn_status_text(checked)); \
      exit(1);                                                        \
    }                                                                 \
  } while (0)

enum { LAYERS = 4, HEADS = 4, KV_HEADS = 2, DIM = 64, PROMPT = 900, MOST = 4096 };

static kvarn_token tokens[MOST]; /* of the sequence at hand */

/* Rows of one token in one layer. */
static void make_rows(uint32_t token, uint32_t position, uint32_t layer, float* rows, size_t count) {
  uint32_t state = token * 2654435761u + position * 40503u + layer * 977u + 1u;
  for (size_t at = 0; at < count; ++at) {
    state = state * 1664525u + 1013904223u;
    rows[at] = (float)(state >> 8) / 8388608.0f - 1.0f;
  }
}

/* Adds tokens to a sequence and returns a number that stands for all bits of what attention gave. */
static uint64_t add(kvarn_cache* cache, uint32_t sequence, uint32_t first, uint32_t count) {
  static float kv[PROMPT * KV_HEADS * DIM], q[PROMPT * HEADS * DIM], out[PROMPT * HEADS * DIM];
  const kvarn_step_part part = {sequence, count};
  const kvarn_query query = KVARN_QUERY_INIT;
  const kvarn_const_rows kv_rows = {kv, KVARN_TYPE_F32, KV_HEADS * DIM, DIM};
  const kvarn_const_rows q_rows = {q, KVARN_TYPE_F32, HEADS * DIM, DIM};
  const kvarn_rows out_rows = {out, KVARN_TYPE_F32, HEADS * DIM, DIM};
  uint64_t bits = 14695981039346656037u;
  CHECK(kvarn_step_begin(cache, &part, 1));
  for (uint32_t layer = 0; layer < LAYERS; ++layer) {
    for (uint32_t at = 0; at < count; ++at) {
      make_rows(tokens[first + at].id, first + at, layer, kv + at * KV_HEADS * DIM, KV_HEADS * DIM);
      make_rows(tokens[first + at].id, first + at, layer + LAYERS, q + at * HEADS * DIM, HEADS * DIM);
    }
    CHECK(kvarn_step_append(cache, layer, &kv_rows, &kv_rows, NULL));
    CHECK(kvarn_step_attend(cache, layer, &query, &q_rows, &out_rows, NULL));
    for (size_t at = 0; at < count * (HEADS * DIM * sizeof(float)); ++at) {
      bits = (bits ^ ((const unsigned char*)out)[at]) * 1099511628211u;
    }
  }
  CHECK(kvarn_step_commit(cache));
  return bits;
}

static kvarn_save_report save(kvarn_cache* cache, uint32_t sequence, uint32_t count, const char* file) {
  const kvarn_session_part part = {cache, sequence, tokens, count};
  kvarn_session_content content = KVARN_SESSION_CONTENT_INIT;
  kvarn_save_report report = KVARN_SAVE_REPORT_INIT;
  content.parts = &part;
  content.part_count = 1;
  content.model.data = "made up";
  content.model.bytes = strlen("made up");
  CHECK(kvarn_session_save(file, &content, 0, &report));
  return report;
}

/* Maps a saved context into sequence 0. Returns its tokens; 0: there is no such file. */
static uint32_t resume(kvarn_cache* cache, const char* file) {
  kvarn_session* session = NULL;
  kvarn_session_part_info part = KVARN_SESSION_PART_INFO_INIT;
  const kvarn_status status = kvarn_session_open(file, &session);
  if (status == KVARN_STATUS_NOT_FOUND) return 0;
  CHECK(status);
  CHECK(kvarn_session_get_part(session, 0, &part));
  CHECK(kvarn_session_get_tokens(session, 0, tokens, (size_t)part.tokens));
  CHECK(kvarn_session_load(session, 0, cache, 0, KVARN_RECORDS_MAPPED));
  kvarn_session_close(session); /* the cache keeps what it needs */
  return (uint32_t)part.tokens;
}

int main(int argc, char** argv) {
  const kvarn_layer layer = {HEADS, KV_HEADS, DIM, DIM};
  const kvarn_layer layers[LAYERS] = {layer, layer, layer, layer};
  kvarn_cache_config config = KVARN_CACHE_CONFIG_INIT;
  kvarn_cache_limits limits = KVARN_CACHE_LIMITS_INIT;
  kvarn_cache* cache = NULL;
  if (argc != 2) return 2;
  limits.sequences = 3;
  limits.tokens = MOST;
  CHECK(kvarn_cache_create(&config, layers, LAYERS, &limits, NULL, &cache));
  uint32_t count = resume(cache, argv[1]);
  const int has_resumed = count != 0;
  if (!has_resumed) {
    for (; count < PROMPT; ++count) {
      tokens[count].id = count * 31u % 1000u;
      tokens[count].position = (int32_t)count;
    }
    add(cache, 0, 0, PROMPT - 1);
    add(cache, 0, PROMPT - 1, 1);
    const kvarn_save_report report = save(cache, 0, PROMPT, argv[1]);
    printf("read %u tokens, wrote %llu bytes\n", (unsigned)PROMPT, (unsigned long long)report.written_bytes);
  } else {
    printf("resumed %u tokens\n", (unsigned)count);
  }
  for (uint32_t fork = 1; fork < 3; ++fork) {
    const uint32_t length = 32 * fork;
    CHECK(kvarn_sequence_fork(cache, 0, fork));
    for (uint32_t at = count; at < count + length; ++at) {
      tokens[at].id = at * 17u % 1000u + fork;
      tokens[at].position = (int32_t)at;
    }
    printf("continuation %u: %016llx\n", (unsigned)fork, (unsigned long long)add(cache, fork, count, length));
  }
  if (has_resumed) {
    const kvarn_save_report report = save(cache, 2, count + 64, argv[1]);
    printf("save %llu: %u new tiles, %s\n", (unsigned long long)report.commit, (unsigned)report.new_tiles,
           report.is_whole ? "a whole file" : "appended");
  }
  kvarn_cache_destroy(cache);
  return 0;
}
