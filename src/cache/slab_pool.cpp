#include "cache/slab_pool.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

namespace kvarn {
namespace {

// Slabs near this size: small enough that the last, half-empty one costs little, large enough that a long context does
// not make tens of thousands of mappings.
constexpr std::size_t kSlabTargetBytes = std::size_t{256} << 10;

std::size_t round_up(std::size_t value, std::size_t to) { return (value + to - 1) / to * to; }

// As many as fit, or down to half of it, whichever leaves least of the last page unused for each slot: up to 1.6 % of a
// slab otherwise.
std::size_t slots_of_slab(std::size_t stride) {
  const std::size_t most = std::max<std::size_t>(1, kSlabTargetBytes / stride);
  const auto unused = [&](std::size_t slots) {
    return round_up(slots * stride, SlabPool::kPageBytes) - slots * stride;
  };
  std::size_t best = most;
  for (std::size_t slots = most; slots >= (most + 1) / 2; --slots) {
    if (unused(slots) * best < unused(best) * slots) best = slots;
  }
  return best;
}

}  // namespace

SlabPool::SlabPool(std::size_t slot_bytes, MemoryLimit* limit, const Allocator& allocator, Return pages)
    : limit_(limit), allocator_(allocator), return_(pages), slot_bytes_(slot_bytes), stride_(round_up(slot_bytes, 64)) {
  slots_per_slab_ = static_cast<std::uint32_t>(slots_of_slab(stride_));
  slab_bytes_ = round_up(stride_ * slots_per_slab_, kPageBytes);
}

std::size_t SlabPool::taken_bytes(std::size_t slot_bytes, std::size_t slots) {
  const std::size_t stride = round_up(slot_bytes, 64);
  const std::size_t per_slab = slots_of_slab(stride);
  return slots / per_slab * round_up(per_slab * stride, kPageBytes) + round_up(slots % per_slab * stride, kPageBytes);
}

SlabPool::SlabPool(SlabPool&& other) noexcept
    : limit_(other.limit_),
      allocator_(other.allocator_),
      return_(other.return_),
      slot_bytes_(other.slot_bytes_),
      stride_(other.stride_),
      slab_bytes_(other.slab_bytes_),
      slots_per_slab_(other.slots_per_slab_),
      used_slots_(other.used_slots_),
      resident_pages_(other.resident_pages_),
      slabs_(std::move(other.slabs_)),
      usable_(std::move(other.usable_)),
      loose_(std::move(other.loose_)) {
  other.slabs_.clear();
  other.resident_pages_ = 0;
}

SlabPool::~SlabPool() {
  for (const Slab& slab : slabs_) return_slab(slab.base);
  forget_pages(resident_pages_);
}

std::size_t SlabPool::find(const void* slot) const {
  const auto* address = static_cast<const std::byte*>(slot);
  const auto after = std::upper_bound(slabs_.begin(), slabs_.end(), address,
                                      [](const std::byte* key, const Slab& slab) { return key < slab.base; });
  return static_cast<std::size_t>(after - slabs_.begin()) - 1;
}

std::byte* SlabPool::take_slab() {
  if (allocator_) return static_cast<std::byte*>(allocator_.allocate(allocator_.context, slab_bytes_, 64));
  void* memory = mmap(nullptr, slab_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return memory == MAP_FAILED ? nullptr : static_cast<std::byte*>(memory);
}

void SlabPool::return_slab(std::byte* base) {
  if (allocator_) {
    allocator_.release(allocator_.context, base, slab_bytes_);
  } else {
    munmap(base, slab_bytes_);
  }
}

bool SlabPool::add_slab(Claim claim) {
  Slab slab;
  slab.page_resident.resize(slab_bytes_ / kPageBytes);
  if (allocator_ && !touch_pages(slab, 0, slab.page_resident.size(), claim)) return false;
  slab.base = take_slab();
  if (slab.base == nullptr) {
    forget_pages(allocator_ ? slab.page_resident.size() : 0);
    return false;
  }
  for (std::uint32_t slot = slots_per_slab_; slot-- > 0;) slab.free_slots.push_back(slot);
  slab.slot_used.resize(slots_per_slab_);
  const auto at = std::upper_bound(slabs_.begin(), slabs_.end(), slab.base,
                                   [](const std::byte* key, const Slab& other) { return key < other.base; });
  usable_.insert(slab.base);
  slabs_.insert(at, std::move(slab));
  return true;
}

std::byte* SlabPool::allocate(Claim claim) {
  if (usable_.empty() && !add_slab(claim)) return nullptr;
  Slab& slab = slabs_[find(*usable_.begin())];
  const std::uint32_t slot = slab.free_slots.back();
  const std::size_t end_page = ((slot + 1) * stride_ - 1) / kPageBytes + 1;
  // A slab without a slot in use takes addresses only.
  if (!touch_pages(slab, slot * stride_ / kPageBytes, end_page, claim)) return nullptr;
  slab.free_slots.pop_back();
  slab.slot_used[slot] = true;
  ++used_slots_;
  if (++slab.used == slots_per_slab_) usable_.erase(slab.base);
  std::byte* memory = slab.base + slot * stride_;
  std::memset(memory, 0, slot_bytes_);
  return memory;
}

bool SlabPool::touch_pages(Slab& slab, std::size_t first_page, std::size_t end_page, Claim claim) {
  const auto first = slab.page_resident.begin() + static_cast<std::ptrdiff_t>(first_page);
  const auto end = slab.page_resident.begin() + static_cast<std::ptrdiff_t>(end_page);
  const auto pages = static_cast<std::size_t>(std::count(first, end, false));
  if (limit_ != nullptr && claim == Claim::kBeyondLimit) limit_->take_beyond(pages * kPageBytes);
  if (limit_ != nullptr && claim == Claim::kWithinLimit && !limit_->take(pages * kPageBytes)) return false;
  std::fill(first, end, true);
  resident_pages_ += pages;
  return true;
}

void SlabPool::forget_pages(std::size_t pages) {
  resident_pages_ -= pages;
  if (limit_ != nullptr) limit_->give_back(pages * kPageBytes);
}

bool SlabPool::page_is_free(const Slab& slab, std::size_t page) const {
  const std::size_t last = std::min<std::size_t>(((page + 1) * kPageBytes - 1) / stride_, slots_per_slab_ - 1);
  for (std::size_t slot = page * kPageBytes / stride_; slot <= last; ++slot) {
    if (slab.slot_used[slot]) return false;
  }
  return true;
}

bool SlabPool::may_wait() const {
  const bool is_limited = limit_ != nullptr && limit_->bytes() != MemoryLimit::kNone;
  return return_ == Return::kTogether && !is_limited && (loose_.size() + 1) * stride_ <= kMostLooseBytes;
}

// Pages that only free slots touch go back though others of their slab stay: slots of one slab live for very different
// times. Slots side by side go as one.
void SlabPool::give_back_loose() {
  std::sort(loose_.begin(), loose_.end());
  for (auto slot = loose_.begin(); slot != loose_.end();) {
    const std::size_t index = find(*slot);
    if (index >= slabs_.size() || *slot >= slabs_[index].base + slab_bytes_) {  // its slab has gone as a whole
      ++slot;
      continue;
    }
    Slab& slab = slabs_[index];
    const auto offset = [&](auto at) { return static_cast<std::size_t>(*at - slab.base); };
    const std::size_t first = offset(slot) / kPageBytes;
    std::size_t end = first;
    for (; slot != loose_.end() && *slot < slab.base + slab_bytes_ && offset(slot) / kPageBytes <= end; ++slot) {
      end = std::max(end, (offset(slot) + stride_ - 1) / kPageBytes + 1);
    }
    give_back_pages(slab, first, end);
  }
  loose_.clear();
}

// Those of [first_page, end_page) that are resident and free.
void SlabPool::give_back_pages(Slab& slab, std::size_t first_page, std::size_t end_page) {
  const auto can_go = [&](std::size_t page) { return slab.page_resident[page] && page_is_free(slab, page); };
  for (std::size_t page = first_page; page < end_page; ++page) {
    const std::size_t first = page;
    for (; page < end_page && can_go(page); ++page) slab.page_resident[page] = false;
    if (page == first) continue;
    madvise(slab.base + first * kPageBytes, (page - first) * kPageBytes, MADV_DONTNEED);
    forget_pages(page - first);
  }
}

void SlabPool::release(void* memory) {
  if (memory == nullptr) return;
  const std::size_t index = find(memory);
  Slab& slab = slabs_[index];
  const auto offset = static_cast<std::size_t>(static_cast<std::byte*>(memory) - slab.base);
  const auto slot = static_cast<std::uint32_t>(offset / stride_);
  slab.slot_used[slot] = false;
  --used_slots_;
  if (--slab.used == 0) {
    forget_pages(static_cast<std::size_t>(std::count(slab.page_resident.begin(), slab.page_resident.end(), true)));
    usable_.erase(slab.base);
    return_slab(slab.base);
    slabs_.erase(slabs_.begin() + static_cast<std::ptrdiff_t>(index));
    return;
  }
  slab.free_slots.push_back(slot);
  usable_.insert(slab.base);
  if (allocator_) return;
  const bool waits = may_wait();
  loose_.push_back(slab.base + offset / stride_ * stride_);
  if (!waits) give_back_loose();
}

}  // namespace kvarn
