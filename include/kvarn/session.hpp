// Sequences of caches as files and streams. Part of kvarn/kvarn.hpp; kvarn.h says more about each call.
#pragma once

#include <kvarn/kvarn.h>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <kvarn/cache.hpp>
#include <kvarn/status.hpp>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace kvarn {
inline namespace v0 {

using Token = kvarn_token;
using SaveReport = kvarn_save_report;
using SessionInfo = kvarn_session_info;
using SessionPart = kvarn_session_part;

// One sequence of a cache that is to be saved. tokens: one for each of its own, or none: ids of 0, positions from 0 on.
inline SessionPart part_of(const Cache& cache, std::uint32_t sequence, std::span<const Token> tokens = {}) {
  return {cache.get(), sequence, tokens.empty() ? nullptr : tokens.data(), tokens.size()};
}

// What a session is to hold. Everything is the caller's.
struct SessionContent {
  std::span<const SessionPart> parts;
  std::span<const std::byte> model = {};     // names the model; compared by whoever loads
  std::span<const std::byte> metadata = {};  // whatever the caller needs to go on

  kvarn_session_content get() const {
    return {sizeof(kvarn_session_content),
            parts.data(),
            parts.size(),
            {model.data(), model.size()},
            {metadata.data(), metadata.size()}};
  }
};

struct SaveOptions {
  bool sync = true;      // false: the save survives the end of the process, but perhaps no power failure
  bool compact = false;  // true: a whole new file is written
};

// Saves to a file: what is new since its last save, or a new file. Whatever happens, the file holds the previous save
// or this one.
inline Result<SaveReport> save_session(const char* path, const SessionContent& content,
                                       const SaveOptions& options = {}) {
  const kvarn_session_content from = content.get();
  const kvarn_save_flags flags =
      (options.sync ? 0u : KVARN_SAVE_UNSYNCED) | (options.compact ? KVARN_SAVE_COMPACT : 0u);
  SaveReport report = KVARN_SAVE_REPORT_INIT;
  const Status status = status_of(kvarn_session_save(path, &from, flags, &report));
  if (status != Status::kOk) return status;
  return report;
}

// Sends the bytes of a new file: write(std::span<const std::byte>) takes them, piece by piece, and returns false to
// stop, which is kWriteFailed here. It may not throw. Returns how many bytes there were.
template <std::invocable<std::span<const std::byte>> Write>
Result<std::uint64_t> send_session(const SessionContent& content, Write&& write) {
  const kvarn_session_content from = content.get();
  using Callable = std::remove_reference_t<Write>;
  const kvarn_sink sink{const_cast<void*>(static_cast<const void*>(std::addressof(write))),
                        [](void* context, const void* bytes, std::size_t size) {
                          const bool goes_on =
                              (*static_cast<Callable*>(context))(std::span(static_cast<const std::byte*>(bytes), size));
                          return goes_on ? KVARN_STATUS_OK : KVARN_STATUS_WRITE_FAILED;
                        }};
  std::uint64_t sent = 0;
  const Status status = status_of(kvarn_session_send(&from, &sink, &sent));
  if (status != Status::kOk) return status;
  return sent;
}

// What a load does with records; everything else is checked and copied in any case.
enum class Records : kvarn_records {
  kCopied = KVARN_RECORDS_COPIED,  // checked now, copied into the cache
  kMapped = KVARN_RECORDS_MAPPED,  // left in the file, read and checked when attention asks for them
};

// An open session: the newest whole save in it. One that was moved from refuses every call with kInvalidArgument.
class Session {
 public:
  // Maps a file and reads its index.
  static Result<Session> open(const char* path) {
    kvarn_session* opened = nullptr;
    const kvarn_status status = kvarn_session_open(path, &opened);
    return made(status, opened);
  }
  // Takes one session from a stream: read(std::span<std::byte>) fills a piece and returns how many bytes it has, 0 at
  // the end. It may not throw.
  template <std::invocable<std::span<std::byte>> Read>
  static Result<Session> receive(Read&& read, std::uint64_t max_bytes) {
    using Callable = std::remove_reference_t<Read>;
    const kvarn_source source{
        const_cast<void*>(static_cast<const void*>(std::addressof(read))),
        [](void* context, void* bytes, std::size_t size) -> std::size_t {
          return (*static_cast<Callable*>(context))(std::span(static_cast<std::byte*>(bytes), size));
        }};
    kvarn_session* opened = nullptr;
    const kvarn_status status = kvarn_session_receive(&source, max_bytes, &opened);
    return made(status, opened);
  }

  // Its model and metadata are good as long as the session.
  Result<SessionInfo> info() const {
    SessionInfo info = KVARN_SESSION_INFO_INIT;
    const Status status = status_of(kvarn_session_get_info(get(), &info));
    if (status != Status::kOk) return status;
    return info;
  }

  struct Shape {
    CacheConfig config;
    std::vector<Layer> layers;
  };
  // Of a cache that the part fits. kOtherShape: there is none.
  Result<Shape> shape(std::uint32_t part = 0) const {
    kvarn_session_part_info info = KVARN_SESSION_PART_INFO_INIT;
    Status status = status_of(kvarn_session_get_part(get(), part, &info));
    if (status != Status::kOk) return status;
    Shape shape{KVARN_CACHE_CONFIG_INIT, std::vector<Layer>(info.layer_count)};
    if (shape.layers.empty()) return Status::kOtherShape;
    status = status_of(kvarn_session_get_shape(get(), part, &shape.config, shape.layers.data(), shape.layers.size()));
    if (status != Status::kOk) return status;
    return shape;
  }

  // The tokens of a part.
  Result<std::vector<Token>> tokens(std::uint32_t part = 0) const {
    kvarn_session_part_info info = KVARN_SESSION_PART_INFO_INIT;
    Status status = status_of(kvarn_session_get_part(get(), part, &info));
    if (status != Status::kOk) return status;
    std::vector<Token> tokens(static_cast<std::size_t>(info.tokens));
    status = status_of(kvarn_session_get_tokens(get(), part, tokens.data(), tokens.size()));
    if (status != Status::kOk) return status;
    return tokens;
  }

  // Makes an empty sequence of a cache the one that was saved. It may outlive the session.
  Status load(Cache& cache, std::uint32_t sequence, Records records = Records::kMapped, std::uint32_t part = 0) const {
    return status_of(kvarn_session_load(get(), part, cache.get(), sequence, static_cast<kvarn_records>(records)));
  }

  // Checks every byte that loading and attention would ever use.
  Status verify() const { return status_of(kvarn_session_verify(get())); }

  // For calls of the C interface; the session keeps it.
  kvarn_session* get() const { return handle_.get(); }

 private:
  struct Close {
    void operator()(kvarn_session* session) const { kvarn_session_close(session); }
  };
  static Result<Session> made(kvarn_status status, kvarn_session* opened) {
    if (status != KVARN_STATUS_OK) return status_of(status);
    return Session(opened);
  }
  explicit Session(kvarn_session* opened) : handle_(opened) {}
  std::unique_ptr<kvarn_session, Close> handle_;
};

}  // namespace v0
}  // namespace kvarn
