// Memory for many arrays from one piece.
#pragma once

#include <cstddef>

namespace kvarn {

// Hands out 64-byte aligned arrays from one piece of memory; with no memory it only counts.
class Carver {
 public:
  explicit Carver(std::byte* memory) : memory_(memory) {}

  template <class T>
  T* take(std::size_t count) {
    T* array = memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + used_);
    used_ += (count * sizeof(T) + 63) / 64 * 64;
    return array;
  }
  std::size_t used_bytes() const { return used_; }

 private:
  std::byte* memory_;
  std::size_t used_ = 0;
};

}  // namespace kvarn
