// Sessions: sequences of caches as files and streams. Saving writes what is new since the file's last save; an open
// session fills caches, copying or straight from its mapping. docs/format/session.md tells the bytes,
// docs/decisions/0016 why. Knows no engine: models are opaque bytes, tokens are numbers.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/runner.hpp"
#include "cache/snapshot.hpp"
#include "session/session_bytes.hpp"
#include "session/session_index.hpp"
#include "session/session_status.hpp"
#include "session/session_tile.hpp"

namespace kvarn {

// A token of a sequence that is saved, and the cell it has in the cache.
struct SessionToken {
  std::uint32_t id = 0;
  std::int32_t position = 0;
  std::uint32_t cell = 0;  // not looked at by caches that have none
};

// One sequence of one cache. An engine that keeps several caches for a model (one of them for sliding windows, say)
// saves the sequence of each as a part. A session holds at most 64.
struct SessionPart {
  SnapshotSource* cache = nullptr;
  std::uint32_t stream = 0;  // or the sequence, in a cache that numbers those
  std::span<const SessionToken> tokens;
};

struct SessionContent {
  std::span<const SessionPart> parts;
  std::span<const std::uint8_t> model;     // names or hashes the model, at most 64 KiB; compared by whoever loads
  std::span<const std::uint8_t> metadata;  // whatever the caller needs to go on; written anew with every save
};

struct SaveOptions {
  bool sync = true;      // the save survives a power failure once the call returns; false: only the end of the process
  bool compact = false;  // write a whole new file, even if little of the old one is out of date
};

struct SaveReport {
  std::uint64_t commit = 0;         // number of this save in the file
  std::uint64_t written_bytes = 0;  // by this call
  std::uint64_t file_bytes = 0;
  std::uint64_t live_bytes = 0;  // what a file with nothing but this save would take
  std::uint32_t new_tiles = 0;
  bool is_whole = false;  // a new file was written, beside the old one, and took its place
};

// Saves to a file: appends to a session that is there, writes a new one if there is none, or if more than half of the
// file would be out of date. Whatever happens, the file holds the previous save or this one, whole. Caches whose
// sequences were loaded from this very file stay good. Other sequences in the file's newest save are forgotten.
// Errors: kInvalidArgument, kOutOfMemory, kDamagedRecord (of a mapped session that the sequence was loaded from); those
// of opening the session that is there (it is left alone, but for kNoCommit); kBusy, kWriteFailed, kNoSpace.
SessionResult<SaveReport> save_session(const char* path, const SessionContent& content,
                                       const SaveOptions& options = {});

// Gives bytes away; returns false to stop.
struct ByteSink {
  void* context = nullptr;
  bool (*write)(void* context, const std::uint8_t* bytes, std::size_t size) = nullptr;
};
// Fills at most `size` bytes, returns how many; 0: there are no more.
struct ByteSource {
  void* context = nullptr;
  std::size_t (*read)(void* context, std::uint8_t* bytes, std::size_t size) = nullptr;
};

// Sends the bytes that save_session() would write to a new file; returns how many. kWriteFailed: the sink stopped.
SessionResult<std::uint64_t> send_session(const SessionContent& content, const ByteSink& sink);

// An open session: what its newest whole commit holds. Reading it touches the index alone; tiles are looked at when
// they are loaded. Copies share the bytes. Safe to read from several threads at once.
class Session {
 public:
  // Opens a file by mapping it. Errors: kNotFound, kReadFailed, kNotASession, kUnknownVersion, kDamagedHeader,
  // kNoCommit, kDamagedIndex, kOutOfMemory.
  static SessionResult<Session> open(const char* path);
  // The same for bytes in memory.
  static SessionResult<Session> open(std::shared_ptr<const SessionBytes> bytes);
  // Takes one session from a stream, as send_session() gives it, and no byte beyond. kTooLarge: it is larger than
  // max_bytes; kCutShort: the source ended.
  static SessionResult<Session> receive(const ByteSource& source, std::uint64_t max_bytes);

  const SessionIndex& index() const { return index_; }
  std::uint32_t version() const { return version_; }  // of the file's format
  std::uint64_t file_bytes() const { return bytes_->bytes().size(); }
  std::uint64_t end() const { return end_; }  // of the newest whole commit; what follows is of a save that broke off
  std::uint64_t live_bytes() const { return live_bytes_; }
  std::uint64_t index_bytes() const { return index_bytes_; }
  std::span<const std::uint8_t> bytes() const { return bytes_->bytes(); }

  // The tokens of a part in the order of the cells that load() takes. kInvalidArgument (part), kDamagedTile.
  SessionResult<std::vector<SessionTokenId>> tokens(std::uint32_t part) const;
  // The tiles of a part, by number. Errors as tokens().
  SessionResult<std::vector<SessionTile>> tiles(std::uint32_t part) const;

  // What happens to records. Everything else is checked and copied in any case.
  enum class Records {
    kCopied,  // checked now, copied into the cache
    kMapped,  // left where they are, for as long as a tile of any cache needs them; checked when first attended to
  };
  // Puts the sequence of a part into cells of a cache: one for each of its tokens(). The cache goes on with the same
  // bytes as the one that was saved, if it is configured alike; tail and level may differ, and the sink too where a
  // cache has cells. On an error the cache holds nothing of it. kOtherShape, kTooFewCells, kDamagedTile and the other
  // kinds of damage, kOutOfMemory; kInvalidArgument: the part, or a cache in the middle of a step.
  SessionStatus load(std::uint32_t part, SnapshotTarget& cache, std::uint32_t stream,
                     std::span<const std::uint32_t> cells, Records records) const;
  // Checks every byte that load() and attention would ever use.
  SessionStatus verify() const;

 private:
  Session(std::shared_ptr<const SessionBytes> bytes, SessionIndex index)
      : bytes_(std::move(bytes)), index_(std::move(index)) {}
  SessionStatus fill(const SessionTile& tile, const SequenceLayout& layout, SnapshotTarget& cache,
                     Records records) const;

  std::shared_ptr<const SessionBytes> bytes_;
  SessionIndex index_;
  std::uint32_t version_ = kSessionVersion;
  std::uint64_t end_ = 0;
  std::uint64_t live_bytes_ = 0;
  std::uint64_t index_bytes_ = 0;
};

}  // namespace kvarn
