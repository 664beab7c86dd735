#include "cache/slab_pool.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>
#include <random>
#include <set>
#include <utility>
#include <vector>

namespace kvarn {
namespace {

TEST(SlabPool, SlotsAreZeroedAlignedAndApart) {
  SlabPool pool(5000);
  std::set<std::byte*> slots;
  for (int count = 0; count < 200; ++count) {
    std::byte* slot = pool.allocate();
    ASSERT_NE(slot, nullptr);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(slot) % 64, 0u);
    for (int at = 0; at < 5000; ++at) ASSERT_EQ(slot[at], std::byte{0});
    std::memset(slot, 0xAB, 5000);
    ASSERT_TRUE(slots.insert(slot).second);
  }
  EXPECT_EQ(pool.used_bytes(), 200u * 5000u);
}

TEST(SlabPool, EmptiedPool_GivesAllMemoryBack) {
  SlabPool pool(4096);
  std::vector<std::byte*> slots;
  for (int count = 0; count < 1000; ++count) slots.push_back(pool.allocate());
  EXPECT_GE(pool.taken_bytes(), 1000u * 4096u);
  for (std::byte* slot : slots) pool.release(slot);
  EXPECT_EQ(pool.taken_bytes(), 0u);
  EXPECT_EQ(pool.used_bytes(), 0u);
}

TEST(SlabPool, ScatteredSlots_HoldNoMoreThanTheirPages) {
  SlabPool pool(6144);
  std::vector<std::byte*> slots;
  for (int count = 0; count < 1000; ++count) slots.push_back(pool.allocate());
  for (int count = 0; count < 1000; ++count) {
    if (count % 8 != 0) {
      pool.release(slots[count]);
    }
  }
  EXPECT_EQ(pool.used_bytes(), 125u * 6144u);
  EXPECT_LE(pool.taken_bytes(), 125u * 3u * 4096u);  // a slot touches two pages, or three at most
  for (int count = 0; count < 1000; count += 8) pool.release(slots[count]);
}

TEST(SlabPool, PagesThatReturnTogether_StayForAWhile_ButNoMoreThanSaid) {
  SlabPool pool(8192, nullptr, {}, SlabPool::Return::kTogether);
  std::vector<std::byte*> slots;
  for (int count = 0; count < 1000; ++count) slots.push_back(pool.allocate());
  for (int count = 1; count < 1000; ++count) {
    if (count % 8 != 0) pool.release(slots[count]);
    ASSERT_LE(pool.taken_bytes(), pool.used_bytes() + SlabPool::kMostLooseBytes);
  }
  EXPECT_GT(pool.taken_bytes(), pool.used_bytes());
}

TEST(SlabPool, WithALimit_NoPageWaits) {
  MemoryLimit limit;
  limit.set(std::uint64_t{1} << 30);
  SlabPool pool(8192, &limit, {}, SlabPool::Return::kTogether);
  std::vector<std::byte*> slots;
  for (int count = 0; count < 100; ++count) slots.push_back(pool.allocate());
  for (int count = 1; count < 100; ++count) {
    pool.release(slots[count]);
    ASSERT_EQ(pool.taken_bytes(), pool.used_bytes());
    ASSERT_EQ(limit.taken(), pool.used_bytes());
  }
}

class SlabPoolReturns : public ::testing::TestWithParam<SlabPool::Return> {};

// mincore() says which pages the system holds; it fails where nothing is mapped any more.
TEST_P(SlabPoolReturns, WhatCountsAsTaken_IsWhatTheSystemHolds) {
  constexpr std::size_t kSlot = 6144;
  std::mt19937 random(11);
  SCOPED_TRACE("seed 11");
  SlabPool pool(kSlot, nullptr, {}, GetParam());
  std::vector<std::byte*> live;
  std::set<std::uintptr_t> pages;  // that any slot ever touched
  for (int step = 0; step < 4000; ++step) {
    const bool grows = step % 1000 < 500;
    if (live.empty() || random() % 8 < (grows ? 6u : 2u)) {
      live.push_back(pool.allocate());
      ASSERT_NE(live.back(), nullptr);
      const auto first = reinterpret_cast<std::uintptr_t>(live.back()) / SlabPool::kPageBytes;
      const auto last = (reinterpret_cast<std::uintptr_t>(live.back()) + kSlot - 1) / SlabPool::kPageBytes;
      for (std::uintptr_t page = first; page <= last; ++page) pages.insert(page);
    } else {
      std::swap(live[random() % live.size()], live.back());
      pool.release(live.back());
      live.pop_back();
    }
    if (step % 250 != 249) continue;
    std::size_t held = 0;
    for (const std::uintptr_t page : pages) {
      unsigned char is_held = 0;
      auto* address = reinterpret_cast<void*>(page * SlabPool::kPageBytes);
      held += mincore(address, SlabPool::kPageBytes, &is_held) == 0 && (is_held & 1) != 0;
    }
    EXPECT_EQ(pool.taken_bytes(), held * SlabPool::kPageBytes) << "step " << step;
  }
}

INSTANTIATE_TEST_SUITE_P(BothWays, SlabPoolReturns,
                         ::testing::Values(SlabPool::Return::kAtOnce, SlabPool::Return::kTogether));

// What full slabs leave unused at their ends; half a page of 64 on average if slots were counted by size alone.
TEST(SlabPool, FullSlabs_WasteNextToNothing) {
  for (const std::size_t slot_bytes : {6976u, 13824u, 14208u, 17920u, 35840u, 71680u, 69632u}) {
    SlabPool pool(slot_bytes);
    const std::size_t slots = (std::size_t{64} << 20) / slot_bytes;
    for (std::size_t slot = 0; slot < slots; ++slot) ASSERT_NE(pool.allocate(), nullptr);
    EXPECT_EQ(pool.taken_bytes(), SlabPool::taken_bytes(slot_bytes, slots));
    EXPECT_LT(static_cast<double>(pool.taken_bytes()), 1.002 * static_cast<double>(pool.used_bytes())) << slot_bytes;
  }
}

TEST(SlabPool, ReusedSlot_IsZeroedAgain) {
  SlabPool pool(256);
  std::byte* keep = pool.allocate();
  std::byte* slot = pool.allocate();
  std::memset(slot, 0xFF, 256);
  pool.release(slot);
  std::byte* again = pool.allocate();
  EXPECT_EQ(again, slot);
  for (int at = 0; at < 256; ++at) ASSERT_EQ(again[at], std::byte{0});
  pool.release(keep);
  pool.release(again);
}

TEST(SlabPool, RandomUse_NeverHandsOutASlotTwice) {
  const unsigned seed = 7;
  SCOPED_TRACE("seed 7");
  std::mt19937 random(seed);
  SlabPool pool(13824);
  std::set<std::byte*> live;
  for (int step = 0; step < 20000; ++step) {
    if (live.empty() || random() % 5 < 3) {
      ASSERT_TRUE(live.insert(pool.allocate()).second);
    } else {
      auto at = live.begin();
      std::advance(at, random() % std::min<std::size_t>(live.size(), 50));
      pool.release(*at);
      live.erase(at);
    }
    ASSERT_EQ(pool.used_bytes(), live.size() * 13824u);
  }
  for (std::byte* slot : live) pool.release(slot);
  EXPECT_EQ(pool.taken_bytes(), 0u);
}

TEST(SlabPool, SharedLimit_RefusesSlotsUntilOthersAreReleased) {
  MemoryLimit limit;
  limit.set(64 * 4096);
  SlabPool one(4096, &limit);
  SlabPool other(4096, &limit);
  std::vector<std::byte*> slots;
  for (std::byte* slot = one.allocate(); slot != nullptr; slot = one.allocate()) slots.push_back(slot);
  EXPECT_EQ(slots.size(), 64u);
  EXPECT_EQ(limit.taken(), 64u * 4096u);
  EXPECT_EQ(other.allocate(), nullptr);
  std::byte* beyond = other.allocate(SlabPool::Claim::kBeyondLimit);
  EXPECT_NE(beyond, nullptr);
  other.release(beyond);
  one.release(slots.back());
  EXPECT_NE(other.allocate(), nullptr);
  EXPECT_EQ(one.allocate(), nullptr);
  EXPECT_EQ(limit.taken(), one.taken_bytes() + other.taken_bytes());
}

TEST(SlabPool, PoolThatEnds_GivesBackWhatItTookOfTheLimit) {
  MemoryLimit limit;
  {
    SlabPool pool(5000, &limit);
    for (int count = 0; count < 100; ++count) ASSERT_NE(pool.allocate(), nullptr);
    EXPECT_EQ(limit.taken(), pool.taken_bytes());
    const SlabPool moved(std::move(pool));
    EXPECT_EQ(limit.taken(), moved.taken_bytes());
  }
  EXPECT_EQ(limit.taken(), 0u);
}

}  // namespace
}  // namespace kvarn
