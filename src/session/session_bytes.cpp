#include "session/session_bytes.hpp"

#include <sys/mman.h>
#include <sys/stat.h>

namespace kvarn {

SessionResult<std::shared_ptr<const SessionBytes>> SessionBytes::map_file(int descriptor) {
  struct stat info {};
  if (fstat(descriptor, &info) != 0 || !S_ISREG(info.st_mode)) return SessionStatus::kReadFailed;
  const auto size = static_cast<std::size_t>(info.st_size);
  if (size == 0) return SessionStatus::kNotASession;
  void* memory = mmap(nullptr, size, PROT_READ, MAP_SHARED, descriptor, 0);
  if (memory == MAP_FAILED) return SessionStatus::kOutOfMemory;
  return std::shared_ptr<const SessionBytes>(new SessionBytes(static_cast<std::uint8_t*>(memory), size));
}

std::shared_ptr<SessionBytes> SessionBytes::allocate(std::size_t size) {
  if (size == 0) return nullptr;
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  return std::shared_ptr<SessionBytes>(new SessionBytes(static_cast<std::uint8_t*>(memory), size));
}

SessionBytes::~SessionBytes() { munmap(data_, size_); }

}  // namespace kvarn
