// Every request to the C++ heap fails once, one after the other: the call says so, the cache can be destroyed, nothing
// leaks (the sanitizers look) and nothing is thrown across the border. Links the static library, whose heap this is.
#include <kvarn/kvarn.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

namespace {

long requests_left = -1;  // before one fails; negative: none does

void* request(std::size_t bytes) {
  if (requests_left == 0) return nullptr;
  if (requests_left > 0) --requests_left;
  return std::malloc(bytes == 0 ? 1 : bytes);
}

}  // namespace

void* operator new(std::size_t bytes) {
  if (void* memory = request(bytes)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace {

constexpr uint32_t kTokens = 40;
float values[kTokens * 64];

// Stops at the first call that is refused and returns its status.
kvarn_status use(kvarn_cache* cache) {
  const kvarn_const_rows rows = {values, KVARN_TYPE_F32, 64, 32};
  float out[kTokens * 64];
  const kvarn_rows out_rows = {out, KVARN_TYPE_F32, 64, 32};
  const kvarn_query query = KVARN_QUERY_INIT;
  for (uint32_t step = 0; step < 4; ++step) {
    const kvarn_step_part parts[] = {{step % 2, kTokens}};
    kvarn_status status = kvarn_step_begin(cache, parts, 1);
    if (status == KVARN_STATUS_OK) status = kvarn_step_append(cache, 0, &rows, &rows, nullptr);
    if (status == KVARN_STATUS_OK) status = kvarn_step_attend(cache, 0, &query, &rows, &out_rows, nullptr);
    if (status == KVARN_STATUS_OK) status = kvarn_step_commit(cache);
    if (status == KVARN_STATUS_OK && step == 0) status = kvarn_sequence_fork(cache, 0, 1);
    if (status == KVARN_STATUS_OK) status = kvarn_sequence_truncate(cache, step % 2, kTokens - 3);
    if (status != KVARN_STATUS_OK) return status;
  }
  const uint32_t sequences[] = {0, 1};
  kvarn_shrink shrink = KVARN_SHRINK_INIT;
  shrink.sequences = sequences;
  shrink.sequence_count = 2;
  const kvarn_status status = kvarn_cache_shrink(cache, &shrink, nullptr);
  return status == KVARN_STATUS_FULL ? KVARN_STATUS_OK : status;  // nothing is ever small enough for no bytes
}

std::vector<unsigned char> wire;  // made before a request fails
std::size_t wire_end = 0;

kvarn_status put(void*, const void* bytes, size_t size) {
  if (size > wire.size() - wire_end) return KVARN_STATUS_FULL;
  std::memcpy(wire.data() + wire_end, bytes, size);
  wire_end += size;
  return KVARN_STATUS_OK;
}
size_t take(void* at, void* bytes, size_t size) {
  auto& from = *static_cast<std::size_t*>(at);
  const std::size_t count = std::min(size, wire_end - from);
  std::memcpy(bytes, wire.data() + from, count);
  from += count;
  return count;
}

// One sequence becomes another one by way of a session. What is refused before the load changes nothing.
kvarn_status travel(kvarn_cache* cache, bool* is_lost) {
  const kvarn_session_part part = {cache, 1, nullptr, 0};
  kvarn_session_content content = KVARN_SESSION_CONTENT_INIT;
  content.parts = &part;
  content.part_count = 1;
  const kvarn_sink sink = {nullptr, put};
  wire_end = 0;
  kvarn_status status = kvarn_session_send(&content, &sink, nullptr);
  if (status != KVARN_STATUS_OK) return status;
  std::size_t at = 0;
  const kvarn_source source = {&at, take};
  kvarn_session* session = nullptr;
  status = kvarn_session_receive(&source, wire.size(), &session);
  if (status == KVARN_STATUS_OK) status = kvarn_session_verify(session);
  if (status == KVARN_STATUS_OK) {
    status = kvarn_session_load(session, 0, cache, 2, KVARN_RECORDS_MAPPED);
    *is_lost = status != KVARN_STATUS_OK;
  }
  kvarn_session_close(session);
  return status;
}

// The status of a whole life of a cache whose request number `failing` is refused; -1: a cache is lost that should not
// be, or the other way round.
int live(long failing) {
  kvarn_cache_config config = KVARN_CACHE_CONFIG_INIT;
  config.tile_tokens = config.sink_tokens = config.tail_tokens = 16;
  kvarn_cache_limits limits = KVARN_CACHE_LIMITS_INIT;
  limits.sequences = 3;
  const kvarn_layer layer = {2, 2, 32, 32};
  kvarn_cache* cache = nullptr;
  requests_left = failing;
  kvarn_status status = kvarn_cache_create(&config, &layer, 1, &limits, nullptr, &cache);
  bool is_lost = false;
  if (status == KVARN_STATUS_OK) {
    status = use(cache);
    is_lost = status != KVARN_STATUS_OK;
  }
  if (status == KVARN_STATUS_OK) status = travel(cache, &is_lost);
  requests_left = -1;
  const bool forgets = cache != nullptr && (kvarn_cache_clear(cache) == KVARN_STATUS_OK) == is_lost;
  kvarn_cache_destroy(cache);
  return forgets ? -1 : static_cast<int>(status);
}

}  // namespace

int main() {
  for (uint32_t at = 0; at < kTokens * 64; ++at)
    values[at] = static_cast<float>(at * 2654435761u % 1000) / 500.0f - 1.0f;
  wire.resize(std::size_t{1} << 20);
  if (live(-1) != KVARN_STATUS_OK) return std::printf("fails although the heap gives all\n"), 1;
  long failing = 0;
  for (; failing < 100000; ++failing) {
    const int status = live(failing);
    if (status == KVARN_STATUS_OK) break;  // fewer requests than that
    if (status != KVARN_STATUS_OUT_OF_MEMORY) return std::printf("request %ld: status %d\n", failing, status), 1;
  }
  std::printf("%ld requests refused in turn\n", failing);
  return failing > 50 && failing < 100000 ? 0 : 1;
}
