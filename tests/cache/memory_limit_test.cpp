// A cache that may not grow any more: a micro-batch fails as a whole, everything before it stays, room is found again.
#include "base/memory_limit.hpp"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "cache/kv_cache.hpp"

namespace kvarn {
namespace {

constexpr std::uint32_t kDim = 32;
constexpr std::uint32_t kKvHeads = 2;
constexpr std::uint32_t kRow = kDim * kKvHeads;
constexpr HalfBits kHidden = 0xFC00;

// One layer and streams of one sequence each, whose tokens fill the cells from 0 on.
class Streams {
 public:
  Streams(const CacheConfig& config, std::uint32_t streams, std::uint32_t cells, MemoryLimit& limit)
      : cells_(cells), cache_(config, streams, cells, &limit), lengths_(streams) {
    k_ = cache_.add_store(Side::kKey, 0, kRow);
    v_ = cache_.add_store(Side::kValue, 0, kRow);
  }

  KvCache& cache() { return cache_; }
  std::uint32_t length(std::uint32_t stream) const { return lengths_[stream]; }
  // The engine drops a sequence and does not say so.
  void drop(std::uint32_t stream) { lengths_[stream] = 0; }

  // Writes and attends to `count` new tokens of one stream; a batch that fails is forgotten.
  Status append(std::uint32_t stream, std::uint32_t count) {
    std::vector<HalfBits> mask(std::size_t{count} * cells_, kHidden);
    std::vector<std::uint32_t> written;
    for (std::uint32_t query = 0; query < count; ++query) {
      written.push_back(lengths_[stream] + query);
      for (std::uint32_t cell = 0; cell <= written.back(); ++cell) mask[std::size_t{query} * cells_ + cell] = 0;
    }
    const BatchMask batch{mask.data(), mask.size(), cells_, stream, 1, count, cells_};
    const Status status = write(batch, written);
    if (status == Status::kOk) {
      lengths_[stream] += count;
    } else {
      cache_.forget_batch();
    }
    return status;
  }

  std::vector<HalfBits> rows(std::uint32_t stream) {
    std::vector<HalfBits> all(std::size_t{lengths_[stream]} * kRow);
    for (std::uint32_t cell = 0; cell < lengths_[stream]; ++cell) cache_.read_row(k_, stream, cell, &all[cell * kRow]);
    return all;
  }

 private:
  Status write(const BatchMask& batch, std::span<const std::uint32_t> written) {
    std::normal_distribution<float> normal;
    std::vector<float> row(kRow);
    for (const StoreId store : {k_, v_}) {
      if (const Status status = cache_.observe(batch, written); status != Status::kOk) return status;
      for (const std::uint32_t cell : written) {
        for (float& value : row) value = normal(random_);
        Status status = cache_.write_row(store, batch.first_stream, cell, row.data());
        if (status == Status::kOutOfMemory && cache_.drop_unseen()) {
          status = cache_.write_row(store, batch.first_stream, cell, row.data());
        }
        if (status != Status::kOk) return status;
      }
    }
    std::vector<float> q(std::size_t{batch.queries} * kRow, 0.5f), out(q.size());
    const AttentionTensors tensors{q.data(), 0, kRow, kDim, out.data(), 0, kRow, kDim};
    return cache_.attend(k_, v_, {kKvHeads, kKvHeads, kDim, kDim}, AttentionParams{}, batch, tensors, Runner{});
  }

  std::uint32_t cells_;
  KvCache cache_;
  StoreId k_ = 0, v_ = 0;
  std::vector<std::uint32_t> lengths_;
  std::mt19937 random_{1};
};

CacheConfig small_tiles(bool exact) {
  CacheConfig config;
  config.exact = exact;
  config.tile_tokens = 16;
  config.sink_tokens = 16;
  config.tail_tokens = 16;
  return config;
}

std::uint64_t taken(const CacheAccount& account) {
  return account.record_bytes + account.open_row_bytes + account.slack_bytes;
}

TEST(MemoryLimit, BatchThatDoesNotFit_FailsAndLeavesEverythingAsItWas) {
  for (const bool exact : {true, false}) {
    MemoryLimit limit;
    Streams streams(small_tiles(exact), 2, 1024, limit);
    ASSERT_EQ(streams.append(0, 100), Status::kOk);
    const std::vector<HalfBits> before = streams.rows(0);
    const std::uint64_t cells = streams.cache().account().cells_in_use;
    limit.set(limit.taken() + 8 * 4096);
    EXPECT_EQ(streams.append(1, 500), Status::kOutOfMemory);
    EXPECT_EQ(streams.rows(0), before);
    EXPECT_EQ(streams.cache().account().cells_in_use, cells);
    EXPECT_LE(taken(streams.cache().account()), limit.bytes());
    EXPECT_EQ(streams.append(1, 10), Status::kOk) << "what the failed batch took is given back";
    EXPECT_EQ(streams.append(0, 10), Status::kOk);
  }
}

TEST(MemoryLimit, CompressedCacheHoldsMoreTokensThanExactOne) {
  std::uint32_t held[2] = {};
  for (const bool exact : {true, false}) {
    MemoryLimit limit;
    limit.set(std::uint64_t{256} << 10);
    Streams streams(small_tiles(exact), 1, 8192, limit);
    while (streams.length(0) < 8000 && streams.append(0, 1) == Status::kOk) held[exact] = streams.length(0);
    EXPECT_LE(taken(streams.cache().account()), limit.bytes() + 4096);
  }
  EXPECT_GT(held[true], 500u);
  EXPECT_GT(held[false], 2 * held[true]);
}

TEST(MemoryLimit, SequenceThatWasDropped_MakesRoomForTheNextOfItsStream) {
  MemoryLimit limit;
  limit.set(std::uint64_t{256} << 10);
  Streams streams(small_tiles(true), 2, 2048, limit);
  while (streams.append(0, 16) == Status::kOk) {
  }
  const std::uint32_t most = streams.length(0);
  ASSERT_EQ(streams.append(1, 64), Status::kOutOfMemory) << "stream 0 may still be wanted";
  for (int round = 0; round < 3; ++round) {
    streams.drop(0);
    while (streams.append(0, 1) == Status::kOk) {
    }
    EXPECT_GE(streams.length(0) + 32, most) << round;
  }
}

// In one stream the cells that a micro-batch does not see may belong to another sequence.
TEST(MemoryLimit, SingleStream_NeverDropsWhatIsNotSeen) {
  MemoryLimit limit;
  Streams streams(small_tiles(true), 1, 1024, limit);
  ASSERT_EQ(streams.append(0, 400), Status::kOk);
  streams.drop(0);
  ASSERT_EQ(streams.append(0, 16), Status::kOk);
  EXPECT_FALSE(streams.cache().drop_unseen());
}

}  // namespace
}  // namespace kvarn
