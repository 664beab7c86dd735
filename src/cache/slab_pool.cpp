#include "cache/slab_pool.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

namespace kvarn {
namespace {

constexpr std::size_t kPageBytes = 4096;
// Slabs near this size: small enough that the last, half-empty one costs little, large enough that a long context does
// not make tens of thousands of mappings.
constexpr std::size_t kSlabTargetBytes = std::size_t{256} << 10;

std::size_t round_up(std::size_t value, std::size_t to) { return (value + to - 1) / to * to; }

}  // namespace

SlabPool::SlabPool(std::size_t slot_bytes) : slot_bytes_(slot_bytes), stride_(round_up(slot_bytes, 64)) {
  slots_per_slab_ = static_cast<std::uint32_t>(std::max<std::size_t>(1, kSlabTargetBytes / stride_));
  slab_bytes_ = round_up(stride_ * slots_per_slab_, kPageBytes);
}

SlabPool::SlabPool(SlabPool&& other) noexcept
    : slot_bytes_(other.slot_bytes_),
      stride_(other.stride_),
      slab_bytes_(other.slab_bytes_),
      slots_per_slab_(other.slots_per_slab_),
      used_slots_(other.used_slots_),
      live_slabs_(other.live_slabs_),
      slabs_(std::move(other.slabs_)),
      usable_(std::move(other.usable_)) {
  other.slabs_.clear();
}

SlabPool::~SlabPool() {
  for (const Slab& slab : slabs_) munmap(slab.base, slab_bytes_);
}

std::size_t SlabPool::find(const void* slot) const {
  const auto* address = static_cast<const std::byte*>(slot);
  const auto after = std::upper_bound(slabs_.begin(), slabs_.end(), address,
                                      [](const std::byte* key, const Slab& slab) { return key < slab.base; });
  return static_cast<std::size_t>(after - slabs_.begin()) - 1;
}

std::byte* SlabPool::allocate() {
  if (usable_.empty()) {
    void* memory = mmap(nullptr, slab_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return nullptr;
    Slab slab;
    slab.base = static_cast<std::byte*>(memory);
    const auto at = std::upper_bound(slabs_.begin(), slabs_.end(), slab.base,
                                     [](const std::byte* key, const Slab& other) { return key < other.base; });
    usable_.insert(slab.base);
    slabs_.insert(at, std::move(slab));
    ++live_slabs_;
  }
  Slab& slab = slabs_[find(*usable_.begin())];
  std::byte* slot = nullptr;
  if (!slab.free_slots.empty()) {
    slot = slab.base + slab.free_slots.back() * stride_;
    slab.free_slots.pop_back();
    std::memset(slot, 0, slot_bytes_);
  } else {
    slot = slab.base + slab.fresh++ * stride_;
  }
  ++used_slots_;
  if (++slab.used == slots_per_slab_) usable_.erase(slab.base);
  return slot;
}

void SlabPool::release(void* slot) {
  if (slot == nullptr) return;
  const std::size_t index = find(slot);
  Slab& slab = slabs_[index];
  --used_slots_;
  if (--slab.used == 0) {
    usable_.erase(slab.base);
    munmap(slab.base, slab_bytes_);
    slabs_.erase(slabs_.begin() + static_cast<std::ptrdiff_t>(index));
    --live_slabs_;
    return;
  }
  usable_.insert(slab.base);
  const auto offset = static_cast<std::size_t>(static_cast<std::byte*>(slot) - slab.base);
  slab.free_slots.push_back(static_cast<std::uint32_t>(offset / stride_));
}

}  // namespace kvarn
