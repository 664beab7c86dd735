// Memory for equal-sized slots, taken from the system on demand and given back in whole pages as slots are released.
#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <vector>

#include "base/allocator.hpp"
#include "base/memory_limit.hpp"

namespace kvarn {

// Hands out slots of one size, zeroed, 64-byte aligned. Lowest slab first, so that a shrinking cache empties whole
// slabs.
class SlabPool {
 public:
  // What a slot may take: what the limit leaves, or more than that, because it makes room soon (a record that replaces
  // larger rows, a row that moves).
  enum class Claim { kWithinLimit, kBeyondLimit };
  static constexpr std::size_t kPageBytes = 4096;  // what memory is counted in
  // When pages of released slots go back to the system, which takes as long for one page as for many: at once, or when
  // so many have been released. While there is a limit to keep they never wait.
  enum class Return { kAtOnce, kTogether };
  static constexpr std::size_t kMostLooseBytes = std::size_t{128} << 10;

  // limit: may be shared, must outlive the pool; nullptr: none. It counts whole pages. With an allocator slabs come
  // from it, count whole while they live, and go back whole.
  explicit SlabPool(std::size_t slot_bytes, MemoryLimit* limit = nullptr, const Allocator& allocator = {},
                    Return pages = Return::kAtOnce);
  ~SlabPool();
  SlabPool(SlabPool&& other) noexcept;
  SlabPool(const SlabPool&) = delete;
  SlabPool& operator=(const SlabPool&) = delete;

  std::size_t slot_bytes() const { return slot_bytes_; }
  std::size_t used_bytes() const { return used_slots_ * slot_bytes_; }
  std::size_t taken_bytes() const { return resident_pages_ * kPageBytes; }  // from the system, in whole pages

  // taken_bytes() of a pool that was given so many slots and has lost none.
  static std::size_t taken_bytes(std::size_t slot_bytes, std::size_t slots);

  // A zeroed slot, or nullptr when the system has no memory or the limit is reached.
  std::byte* allocate(Claim claim = Claim::kWithinLimit);
  // Gives a slot back; nullptr is allowed.
  void release(void* slot);

 private:
  struct Slab {
    std::byte* base = nullptr;
    std::uint32_t used = 0;
    std::vector<std::uint32_t> free_slots;
    std::vector<bool> slot_used;
    std::vector<bool> page_resident;  // touched since it was last given back
  };
  std::size_t find(const void* slot) const;
  std::byte* take_slab();
  void return_slab(std::byte* base);
  bool add_slab(Claim claim);
  // Takes the pages [first_page, end_page) of a slab that are not resident; false if the limit refuses them.
  bool touch_pages(Slab& slab, std::size_t first_page, std::size_t end_page, Claim claim);
  void forget_pages(std::size_t pages);
  bool may_wait() const;
  void give_back_loose();
  void give_back_pages(Slab& slab, std::size_t first_page, std::size_t end_page);
  bool page_is_free(const Slab& slab, std::size_t page) const;

  MemoryLimit* limit_;
  Allocator allocator_;
  Return return_;
  std::size_t slot_bytes_;
  std::size_t stride_;  // slot_bytes_ rounded up to 64
  std::size_t slab_bytes_;
  std::uint32_t slots_per_slab_;
  std::size_t used_slots_ = 0;
  std::size_t resident_pages_ = 0;
  std::vector<Slab> slabs_;              // sorted by base address
  std::set<const std::byte*> usable_;    // bases of slabs with a free slot
  std::vector<const std::byte*> loose_;  // slots released since pages were last given back; some may be in use again
};

}  // namespace kvarn
