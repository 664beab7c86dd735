// Large memory from the caller instead of the system. Lowest folder: knows bytes only.
#pragma once

#include <cstddef>

namespace kvarn {

// allocate returns `bytes` of memory at a multiple of `alignment` (a power of two), content undefined, or nullptr.
// release takes back what allocate gave, with the same `bytes`. Neither may throw.
struct Allocator {
  void* context = nullptr;
  void* (*allocate)(void* context, std::size_t bytes, std::size_t alignment) = nullptr;  // nullptr: the system's pages
  void (*release)(void* context, void* memory, std::size_t bytes) = nullptr;
  explicit operator bool() const { return allocate != nullptr; }
};

}  // namespace kvarn
