// Saving to a file so that it holds the previous save or the new one, whole, whatever happens and whenever:
//
//   append      tiles and index behind the last whole commit, synchronize, trailer, synchronize
//   whole file  everything to PATH.partial, synchronize, rename, synchronize the directory
//
// A lock on the file keeps other savers out; readers need none, since nothing that a commit names is ever overwritten.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <optional>
#include <string>

#include "session/session_writer.hpp"

namespace kvarn {
namespace {

class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  ~Descriptor() {
    if (number_ >= 0) close(number_);
  }
  Descriptor(Descriptor&& other) noexcept : number_(other.number_) { other.number_ = -1; }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int number() const { return number_; }

 private:
  int number_;
};

// Gathers small pieces; large ones go through as they are.
class FileWriter {
 public:
  FileWriter(int descriptor, std::uint64_t offset) : descriptor_(descriptor), offset_(offset) {
    pending_.reserve(kGathered);
  }
  ByteSink sink() {
    return {this, [](void* context, const std::uint8_t* bytes, std::size_t size) {
              return static_cast<FileWriter*>(context)->take({bytes, size});
            }};
  }
  bool flush() {
    const bool written = write_all(pending_);
    pending_.clear();
    return written;
  }
  std::uint64_t offset() const { return offset_; }
  SessionStatus failure() const {
    return error_ == ENOSPC || error_ == EDQUOT ? SessionStatus::kNoSpace : SessionStatus::kWriteFailed;
  }

 private:
  static constexpr std::size_t kGathered = std::size_t{256} << 10;

  bool take(std::span<const std::uint8_t> bytes) {
    if (pending_.size() + bytes.size() > kGathered && !flush()) return false;
    if (bytes.size() > kGathered) return write_all(bytes);
    pending_.insert(pending_.end(), bytes.begin(), bytes.end());
    return true;
  }
  bool write_all(std::span<const std::uint8_t> bytes) {
    while (!bytes.empty()) {
      const ssize_t written = pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset_));
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) {
        error_ = errno;
        return false;
      }
      offset_ += static_cast<std::uint64_t>(written);
      bytes = bytes.subspan(static_cast<std::size_t>(written));
    }
    return true;
  }

  int descriptor_;
  std::uint64_t offset_;
  int error_ = 0;
  std::vector<std::uint8_t> pending_;
};

bool same_file(int descriptor, const char* path) {
  struct stat open_file {};
  struct stat named_file {};
  return fstat(descriptor, &open_file) == 0 && stat(path, &named_file) == 0 && open_file.st_ino == named_file.st_ino &&
         open_file.st_dev == named_file.st_dev;
}

// Opens and locks a file; another saver may have put a new one in its place meanwhile.
SessionResult<Descriptor> open_locked(const char* path, int flags) {
  for (int attempt = 0; attempt < 8; ++attempt) {
    Descriptor file(open(path, flags | O_RDWR | O_CLOEXEC, 0666));
    if (file.number() < 0) return errno == ENOENT ? SessionStatus::kNotFound : SessionStatus::kWriteFailed;
    if (flock(file.number(), LOCK_EX | LOCK_NB) != 0) return SessionStatus::kBusy;
    if (same_file(file.number(), path)) return file;
  }
  return SessionStatus::kBusy;
}

bool synchronize(int descriptor, const SaveOptions& options) { return !options.sync || fdatasync(descriptor) == 0; }

bool synchronize_directory(const std::string& path, const SaveOptions& options) {
  if (!options.sync) return true;
  const std::size_t slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const Descriptor opened(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return opened.number() >= 0 && fsync(opened.number()) == 0;
}

// Everything of a commit into an open file, the trailer last.
SessionStatus write_commit(const SessionWriter& writer, int descriptor, std::uint64_t start,
                           const SaveOptions& options) {
  FileWriter file(descriptor, start);
  if (!writer.write_body(file.sink()) || !file.flush()) return file.failure();
  if (!synchronize(descriptor, options)) return SessionStatus::kWriteFailed;
  if (!writer.write_trailer(file.sink()) || !file.flush()) return file.failure();
  return synchronize(descriptor, options) ? SessionStatus::kOk : SessionStatus::kWriteFailed;
}

SaveReport report_of(const SessionWriter& writer, std::uint64_t start, bool is_whole) {
  return {writer.commit(), writer.end() - start, writer.end(), writer.live_bytes(), writer.new_tiles(), is_whole};
}

SessionResult<SaveReport> save_whole(const std::string& path, const SessionContent& content, std::uint64_t commit,
                                     const SaveOptions& options) {
  const std::string partial = path + ".partial";
  const auto file = open_locked(partial.c_str(), O_CREAT);
  if (!file.ok()) return file.status() == SessionStatus::kNotFound ? SessionStatus::kWriteFailed : file.status();
  SessionWriter writer(content, commit);
  SessionStatus status = writer.plan(nullptr, 0);
  if (status == SessionStatus::kOk && ftruncate(file.value().number(), 0) != 0) status = SessionStatus::kWriteFailed;
  if (status == SessionStatus::kOk) status = write_commit(writer, file.value().number(), 0, options);
  const bool placed = status == SessionStatus::kOk && std::rename(partial.c_str(), path.c_str()) == 0;
  if (!placed) {
    unlink(partial.c_str());
    return status == SessionStatus::kOk ? SessionStatus::kWriteFailed : status;
  }
  if (!synchronize_directory(path, options)) return SessionStatus::kWriteFailed;
  return report_of(writer, 0, true);
}

}  // namespace

SessionResult<SaveReport> save_session(const char* path, const SessionContent& content, const SaveOptions& options) {
  const auto file = open_locked(path, 0);
  if (!file.ok()) {
    return file.status() == SessionStatus::kNotFound ? save_whole(path, content, 1, options) : file.status();
  }
  const int descriptor = file.value().number();
  auto bytes = SessionBytes::map_file(descriptor);
  if (!bytes.ok()) return bytes.status();
  const auto previous = Session::open(std::move(bytes.value()));
  if (previous.status() == SessionStatus::kNoCommit) return save_whole(path, content, 1, options);
  if (!previous.ok()) return previous.status();
  const std::uint64_t commit = previous.value().index().commit + 1;
  const std::uint64_t start = previous.value().end();
  SessionWriter writer(content, commit);
  if (const SessionStatus status = writer.plan(&previous.value(), start); status != SessionStatus::kOk) return status;
  const bool is_wasteful = writer.end() > 2 * writer.live_bytes();
  const bool is_outgrown = writer.version() > previous.value().version();
  if (options.compact || is_wasteful || is_outgrown) return save_whole(path, content, commit, options);
  // What follows the last whole commit is of a save that broke off: nobody reads it.
  if (ftruncate(descriptor, static_cast<off_t>(start)) != 0) return SessionStatus::kWriteFailed;
  const SessionStatus status = write_commit(writer, descriptor, start, options);
  if (status == SessionStatus::kOk) return report_of(writer, start, false);
  (void)!ftruncate(descriptor, static_cast<off_t>(start));  // readers pass over what stays
  return status;
}

}  // namespace kvarn
