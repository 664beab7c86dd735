// Memory for equal-sized slots, taken from the system in slabs on demand and given back slab by slab when one is empty.
#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <vector>

namespace kvarn {

// Hands out slots of one size, zeroed, 64-byte aligned. Lowest slab first, so that a shrinking cache empties whole
// slabs.
class SlabPool {
 public:
  explicit SlabPool(std::size_t slot_bytes);
  ~SlabPool();
  SlabPool(SlabPool&& other) noexcept;
  SlabPool(const SlabPool&) = delete;
  SlabPool& operator=(const SlabPool&) = delete;

  std::size_t slot_bytes() const { return slot_bytes_; }
  std::size_t used_bytes() const { return used_slots_ * slot_bytes_; }
  std::size_t taken_bytes() const { return live_slabs_ * slab_bytes_; }  // from the system

  // A zeroed slot, or nullptr when the system has no memory.
  std::byte* allocate();
  // Gives a slot back; nullptr is allowed.
  void release(void* slot);

 private:
  struct Slab {
    std::byte* base = nullptr;
    std::uint32_t used = 0;
    std::uint32_t fresh = 0;                // slots from here on were never handed out and are zero
    std::vector<std::uint32_t> free_slots;  // handed out before and returned
  };
  std::size_t find(const void* slot) const;

  std::size_t slot_bytes_;
  std::size_t stride_;  // slot_bytes_ rounded up to 64
  std::size_t slab_bytes_;
  std::uint32_t slots_per_slab_;
  std::size_t used_slots_ = 0;
  std::size_t live_slabs_ = 0;
  std::vector<Slab> slabs_;            // sorted by base address
  std::set<const std::byte*> usable_;  // bases of slabs with a free slot
};

}  // namespace kvarn
