#include "session/session_bytes.hpp"

#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>

namespace kvarn {
namespace {

constexpr std::uint64_t kPageBytes = 65536;  // of the largest pages that machines are set up with

}  // namespace

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

void SessionBytes::expect(Access access) const {
  (void)madvise(data_, size_, access == Access::kScattered ? MADV_RANDOM : MADV_NORMAL);
}

void SessionBytes::prefetch(std::uint64_t offset, std::uint64_t size) const {
  const std::uint64_t first = offset / kPageBytes * kPageBytes;
  if (offset < size_)
    (void)madvise(data_ + first, std::min<std::uint64_t>(offset + size, size_) - first, MADV_WILLNEED);
}

SessionBytes::~SessionBytes() { munmap(data_, size_); }

}  // namespace kvarn
