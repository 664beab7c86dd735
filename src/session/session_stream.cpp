// Sessions through streams: the bytes of a new file, from a sender's cache to a receiver's memory.
#include <algorithm>

#include "base/checksum.hpp"
#include "session/session_writer.hpp"

namespace kvarn {
namespace {

// Memory is taken as bytes arrive, so that a header alone cannot ask for all of it.
constexpr std::size_t kFirstTake = std::size_t{1} << 20;

// Fills bytes[0, size) or returns how much came before the end.
std::size_t read_fully(const ByteSource& source, std::uint8_t* bytes, std::size_t size) {
  std::size_t got = 0;
  while (got < size) {
    const std::size_t more = source.read(source.context, bytes + got, size - got);
    if (more == 0 || more > size - got) break;
    got += more;
  }
  return got;
}

}  // namespace

SessionResult<std::uint64_t> send_session(const SessionContent& content, const ByteSink& sink) {
  SessionWriter writer(content, 1);
  if (const SessionStatus status = writer.plan(nullptr, 0); status != SessionStatus::kOk) return status;
  if (!writer.write_body(sink) || !writer.write_trailer(sink)) return SessionStatus::kWriteFailed;
  return writer.end();
}

SessionResult<Session> Session::receive(const ByteSource& source, std::uint64_t max_bytes) {
  SessionHeader header;
  auto* header_bytes = reinterpret_cast<std::uint8_t*>(&header);
  if (read_fully(source, header_bytes, sizeof(header)) != sizeof(header)) return SessionStatus::kCutShort;
  if (std::memcmp(header.magic, kSessionMagic, sizeof(kSessionMagic)) != 0) return SessionStatus::kNotASession;
  if (!known_version(header.version)) return SessionStatus::kUnknownVersion;
  if (checksum({header_bytes, sizeof(header) - sizeof(header.checksum)}) != header.checksum ||
      header.first_commit_end < sizeof(SessionHeader) + sizeof(SessionTrailer)) {
    return SessionStatus::kDamagedHeader;
  }
  if (header.first_commit_end > max_bytes || header.first_commit_end > SIZE_MAX) return SessionStatus::kTooLarge;
  const auto size = static_cast<std::size_t>(header.first_commit_end);
  std::shared_ptr<SessionBytes> memory;
  std::size_t filled = 0;
  for (std::size_t take = std::min(size, kFirstTake);; take = std::min(size, take * 2)) {
    auto larger = SessionBytes::allocate(take);
    if (larger == nullptr) return SessionStatus::kOutOfMemory;
    if (memory == nullptr) {
      std::memcpy(larger->writable(), header_bytes, sizeof(header));
      filled = sizeof(header);
    } else {
      std::memcpy(larger->writable(), memory->bytes().data(), filled);
    }
    memory = std::move(larger);
    filled += read_fully(source, memory->writable() + filled, take - filled);
    if (filled < take) return SessionStatus::kCutShort;
    if (take == size) break;
  }
  return open(std::shared_ptr<const SessionBytes>(std::move(memory)));
}

}  // namespace kvarn
