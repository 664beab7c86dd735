// The checksum of files is XXH3's.
#include "base/checksum.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace kvarn {
namespace {

// By the reference implementation (xxHash 0.8.1) over the bytes i * 7 + 3, of every kind of length it tells apart.
struct Known {
  std::size_t size;
  std::uint64_t value;
};
constexpr Known kKnown[] = {
    {0, 0x2d06800538d394c2u},   {1, 0x13e608bc156defedu},    {4, 0x6d9253b16c8b1ed3u},
    {9, 0xfeff668361d723a8u},   {17, 0x714a04408e79b80fu},   {129, 0xc664bf3311c6abc4u},
    {241, 0x8beadd3a8874fe17u}, {1024, 0x9b81661c641c72b1u}, {5000, 0x799aaddd7339581du},
};

TEST(Checksum, IsXxh3) {
  for (const Known& known : kKnown) {
    std::vector<std::uint8_t> bytes(known.size);
    for (std::size_t at = 0; at < bytes.size(); ++at) bytes[at] = static_cast<std::uint8_t>(at * 7 + 3);
    EXPECT_EQ(checksum(bytes), known.value) << known.size;
  }
}

TEST(Checksum, UnalignedBytes_GiveTheSame) {
  std::vector<std::uint8_t> bytes(3000, 0x5A);
  for (const std::size_t size : {7u, 100u, 200u, 2000u}) {
    EXPECT_EQ(checksum(std::span(bytes).subspan(1, size)), checksum(std::span(bytes).subspan(8, size))) << size;
  }
}

TEST(Checksum, OneFlippedBit_GivesAnother) {
  for (const std::size_t size : {1u, 5u, 16u, 60u, 150u, 700u}) {
    std::vector<std::uint8_t> bytes(size, 0xA5);
    const std::uint64_t before = checksum(bytes);
    for (std::size_t bit = 0; bit < size * 8; ++bit) {
      bytes[bit / 8] ^= static_cast<std::uint8_t>(1u << (bit % 8));
      ASSERT_NE(checksum(bytes), before) << size << " bytes, bit " << bit;
      bytes[bit / 8] ^= static_cast<std::uint8_t>(1u << (bit % 8));
    }
  }
}

}  // namespace
}  // namespace kvarn
