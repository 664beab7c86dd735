#include "cache/state_fragment.hpp"

#include <cstddef>
#include <cstring>

namespace kvarn {
namespace {

// 15 bits a value: the top bit of the exponent stays zero, so that every value is finite.
constexpr std::uint32_t kBitsPerValue = 15;
constexpr std::uint64_t kMagic = 0x324E5241564B5254ull;  // "TRKVARN2" in memory order

struct Header {
  std::uint64_t magic;
  std::uint64_t checksum;  // of everything behind this field
  std::uint64_t payload_hash;
  std::uint32_t payload_bytes;
  std::uint16_t row;
  std::uint16_t index;
  std::uint16_t fragments;
  std::uint16_t dim;
  std::uint16_t tile_tokens;
  std::uint16_t bits;
};
static_assert(sizeof(Header) == 40);
constexpr std::size_t kUnchecked = offsetof(Header, payload_hash);

HalfBits value_of(std::uint32_t bits) { return static_cast<HalfBits>(((bits & 0x4000u) << 1) | (bits & 0x3FFFu)); }

std::uint32_t bits_of(HalfBits value) { return ((value >> 1) & 0x4000u) | (value & 0x3FFFu); }

}  // namespace

std::uint64_t hash_bytes(std::span<const std::uint8_t> bytes, std::uint64_t seed) {
  std::uint64_t state = seed ^ (bytes.size() * 0x9E3779B97F4A7C15ull);
  for (std::size_t at = 0; at < bytes.size(); at += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data() + at, bytes.size() - at < 8 ? bytes.size() - at : 8);
    state = (state ^ word) * 0xD6E8FEB86659FD93ull;
    state ^= state >> 32;
  }
  return state;
}

std::size_t fragment_capacity(std::uint32_t row_values) {
  const std::size_t bytes = std::size_t{row_values} * kBitsPerValue / 8;
  return bytes > sizeof(Header) ? bytes - sizeof(Header) : 0;
}

void pack_fragment(const StateFragment& fragment, std::span<HalfBits> row) {
  Header header{kMagic,
                0,
                fragment.payload_hash,
                fragment.payload_bytes,
                fragment.row,
                fragment.index,
                fragment.fragments,
                fragment.dim,
                fragment.tile_tokens,
                fragment.bits};
  std::uint8_t head[sizeof(Header)];
  std::memcpy(head, &header, sizeof(Header));
  header.checksum = hash_bytes({head + kUnchecked, sizeof(Header) - kUnchecked}, kMagic);
  header.checksum = hash_bytes(fragment.share, header.checksum);
  std::memcpy(head, &header, sizeof(Header));
  std::uint64_t pending = 0;
  std::uint32_t count = 0;
  std::size_t next = 0;
  for (HalfBits& value : row) {
    while (count < kBitsPerValue) {
      const std::size_t in_share = next - sizeof(Header);
      const std::uint64_t byte = next < sizeof(Header)              ? head[next]
                                 : in_share < fragment.share.size() ? fragment.share[in_share]
                                                                    : 0;
      ++next;
      pending |= byte << count;
      count += 8;
    }
    value = value_of(static_cast<std::uint32_t>(pending & 0x7FFFu));
    pending >>= kBitsPerValue;
    count -= kBitsPerValue;
  }
}

std::optional<StateFragment> unpack_fragment(std::span<const HalfBits> row, std::span<std::uint8_t> bytes) {
  std::uint64_t pending = 0;
  std::uint32_t count = 0;
  std::size_t filled = 0;
  for (const HalfBits value : row) {
    if ((value & 0x4000u) != 0) return std::nullopt;
    pending |= static_cast<std::uint64_t>(bits_of(value)) << count;
    count += kBitsPerValue;
    for (; count >= 8; count -= 8, pending >>= 8) bytes[filled++] = static_cast<std::uint8_t>(pending);
    if (filled >= 8 && filled < 10 && std::memcmp(bytes.data(), &kMagic, 8) != 0) return std::nullopt;
  }
  Header header;
  if (filled < sizeof(Header)) return std::nullopt;
  std::memcpy(&header, bytes.data(), sizeof(Header));
  if (header.magic != kMagic || header.fragments == 0 || header.index >= header.fragments) return std::nullopt;
  const std::size_t size = share_range(header.payload_bytes, header.fragments, header.index).size;
  if (size > filled - sizeof(Header)) return std::nullopt;
  const std::span<const std::uint8_t> payload = bytes.subspan(sizeof(Header), size);
  const std::uint64_t checksum = hash_bytes(bytes.subspan(kUnchecked, sizeof(Header) - kUnchecked), kMagic);
  if (hash_bytes(payload, checksum) != header.checksum) return std::nullopt;
  return StateFragment{header.row,  header.index,         header.fragments,    header.dim, header.tile_tokens,
                       header.bits, header.payload_bytes, header.payload_hash, payload};
}

}  // namespace kvarn
