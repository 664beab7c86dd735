#include "cache/state_fragment.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace kvarn {
namespace {

std::vector<std::uint8_t> random_bytes(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::uint8_t> bytes(count);
  for (auto& byte : bytes) byte = static_cast<std::uint8_t>(random());
  return bytes;
}

StateFragment example(std::span<const std::uint8_t> share) {
  return {.row = 17,
          .index = 3,
          .fragments = 100,
          .dim = 64,
          .tile_tokens = 128,
          .bits = 4,
          .payload_bytes = 13824,
          .payload_hash = 0x1234567890ABCDEFull,
          .share = share};
}

TEST(StateFragment, PackedRow_UnpacksToTheSameFragment) {
  const auto share = random_bytes(share_range(13824, 100, 0).size, 1);
  std::vector<HalfBits> row(192);
  pack_fragment(example(share), row);
  std::vector<std::uint8_t> bytes(row.size() * 2);
  const auto back = unpack_fragment(row, bytes);
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(back->row, 17);
  EXPECT_EQ(back->index, 3);
  EXPECT_EQ(back->fragments, 100);
  EXPECT_EQ(back->dim, 64);
  EXPECT_EQ(back->payload_hash, 0x1234567890ABCDEFull);
  EXPECT_EQ(std::vector<std::uint8_t>(back->share.begin(), back->share.end()), share);
}

TEST(StateFragment, SharesOfAnyPayload_UnpackAndAreTheWholePayload) {
  std::vector<HalfBits> row(256);
  std::vector<std::uint8_t> bytes(row.size() * 2);
  for (const std::uint16_t fragments : {1, 3, 16, 100, 127, 128}) {
    const std::size_t most = std::min<std::size_t>(4000, fragments * fragment_capacity(256));
    for (std::uint32_t size = 1; size <= most; size += 7) {
      const auto payload = random_bytes(size, size);
      std::vector<std::uint8_t> together;
      for (std::uint16_t index = 0; index < fragments; ++index) {
        const ShareRange share = share_range(size, fragments, index);
        StateFragment fragment = example({payload.data() + share.first, share.size});
        fragment.index = index;
        fragment.fragments = fragments;
        fragment.payload_bytes = size;
        pack_fragment(fragment, row);
        const auto back = unpack_fragment(row, bytes);
        ASSERT_TRUE(back.has_value()) << size << " bytes, " << index << " of " << fragments;
        together.insert(together.end(), back->share.begin(), back->share.end());
      }
      ASSERT_EQ(together, payload);
    }
  }
}

TEST(StateFragment, EveryPackedValue_IsFinite) {
  const std::vector<std::uint8_t> share(share_range(13824, 100, 0).size, 0xFF);
  std::vector<HalfBits> row(192);
  pack_fragment(example(share), row);
  for (const HalfBits value : row) EXPECT_TRUE(std::isfinite(half_to_float(value)));
}

TEST(StateFragment, AnyFlippedBit_IsNoFragmentAnyMore) {
  const auto share = random_bytes(share_range(13824, 100, 0).size, 2);
  std::vector<HalfBits> row(192);
  pack_fragment(example(share), row);
  std::vector<std::uint8_t> bytes(row.size() * 2);
  const std::size_t carried_bits = (40 + share.size()) * 8;
  for (std::size_t bit = 0; bit < row.size() * 16; ++bit) {
    std::vector<HalfBits> damaged = row;
    damaged[bit / 16] ^= static_cast<HalfBits>(1u << (bit % 16));
    const bool carries = bit % 16 == 14 || (bit / 16) * 15 + (bit % 16 == 15 ? 14 : bit % 16) < carried_bits;
    if (carries) {
      EXPECT_FALSE(unpack_fragment(damaged, bytes).has_value()) << bit;
    }
  }
}

TEST(StateFragment, OrdinaryRows_AreNoFragments) {
  std::mt19937 random(3);
  std::vector<HalfBits> row(192);
  std::vector<std::uint8_t> bytes(row.size() * 2);
  for (int count = 0; count < 10000; ++count) {
    for (HalfBits& value : row) value = static_cast<HalfBits>(random());
    EXPECT_FALSE(unpack_fragment(row, bytes).has_value());
    for (HalfBits& value : row) value = static_cast<HalfBits>(random() & 0xBFFF);
    EXPECT_FALSE(unpack_fragment(row, bytes).has_value());
  }
}

TEST(StateFragment, RowAtItsCapacity_CarriesAllOfIt) {
  const std::size_t capacity = fragment_capacity(192);
  EXPECT_GT(capacity, 300u);
  const auto share = random_bytes(capacity, 4);
  StateFragment fragment = example(share);
  fragment.payload_bytes = static_cast<std::uint32_t>(100 * capacity);
  std::vector<HalfBits> row(192);
  pack_fragment(fragment, row);
  std::vector<std::uint8_t> bytes(row.size() * 2);
  const auto back = unpack_fragment(row, bytes);
  ASSERT_TRUE(back.has_value());
  EXPECT_TRUE(std::equal(share.begin(), share.end(), back->share.begin(), back->share.end()));
}

TEST(StateFragment, NarrowRow_CarriesNothing) { EXPECT_EQ(fragment_capacity(16), 0u); }

}  // namespace
}  // namespace kvarn
