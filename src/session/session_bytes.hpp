// The bytes of an open session: a mapped file or a piece of memory, read only, 64-byte aligned. Whoever keeps the
// shared pointer keeps them. Knows nothing of what they mean.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "session/session_status.hpp"

namespace kvarn {

class SessionBytes {
 public:
  // Maps what the file holds now. The file may grow meanwhile; if somebody shortens it, reading ends in a signal.
  static SessionResult<std::shared_ptr<const SessionBytes>> map_file(int descriptor);
  // Takes `size` bytes of memory of its own to be filled.
  static std::shared_ptr<SessionBytes> allocate(std::size_t size);
  ~SessionBytes();
  SessionBytes(const SessionBytes&) = delete;
  SessionBytes& operator=(const SessionBytes&) = delete;

  // What is about to be read: pieces far apart, or long stretches. A hint to the system, which reads ahead or does not.
  enum class Access { kScattered, kStretches };
  void expect(Access access) const;
  // Asks for a piece that will be read soon; does not wait for it.
  void prefetch(std::uint64_t offset, std::uint64_t size) const;

  std::span<const std::uint8_t> bytes() const { return {data_, size_}; }
  std::uint8_t* writable() { return data_; }  // of allocate() alone

 private:
  SessionBytes(std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}
  std::uint8_t* data_;
  std::size_t size_;
};

}  // namespace kvarn
