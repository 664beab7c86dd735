// Damage for session files: random changes, and checksums that fit whatever was changed.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <random>
#include <span>
#include <vector>

#include "base/checksum.hpp"
#include "session/session_index.hpp"

namespace kvarn {

template <class Pod>
Pod read_pod(std::span<const std::uint8_t> bytes, std::size_t offset) {
  Pod pod;
  std::memcpy(&pod, bytes.data() + offset, sizeof(Pod));
  return pod;
}
template <class Pod>
void write_pod(std::span<std::uint8_t> bytes, std::size_t offset, const Pod& pod) {
  std::memcpy(bytes.data() + offset, &pod, sizeof(Pod));
}

// One to four places changed: bits, bytes, words that are likely to matter; sometimes a piece moved or the end cut off.
inline std::vector<std::uint8_t> mutated(const std::vector<std::uint8_t>& bytes, std::mt19937& random) {
  static constexpr std::uint32_t kWords[] = {0,    1,    2,      15,         16,         17,        64,
                                             0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF};
  std::vector<std::uint8_t> out = bytes;
  for (std::uint32_t change = random() % 4 + 1; change > 0; --change) {
    // Half of the changes go to the last KiB, where index and trailer are, or to a tile's head.
    const std::size_t span = random() % 2 == 0 ? out.size() : std::min<std::size_t>(out.size(), 1024);
    const std::size_t at = out.size() - span + random() % span;
    switch (random() % 8) {
      case 0:
      case 1:
      case 2:
        out[at] ^= static_cast<std::uint8_t>(1u << (random() % 8));
        break;
      case 3:
        out[at] = static_cast<std::uint8_t>(random());
        break;
      case 4:
      case 5:
        if (at / 4 * 4 + 4 <= out.size()) write_pod(std::span(out), at / 4 * 4, kWords[random() % std::size(kWords)]);
        break;
      case 6: {
        const std::size_t count = std::min<std::size_t>(random() % 200, out.size() - at);
        const std::size_t from = random() % (out.size() - count + 1);
        std::memmove(out.data() + at, out.data() + from, count);
        break;
      }
      default:
        if (random() % 16 == 0) out.resize(std::max<std::size_t>(at, 1));
    }
  }
  return out;
}

// Computes all checksums of a single commit anew, as far as its pieces are where they can be.
inline void reseal(std::vector<std::uint8_t>& file) {
  const std::span<std::uint8_t> bytes(file);
  if (bytes.size() < sizeof(SessionHeader) + sizeof(SessionTrailer)) return;
  auto header = read_pod<SessionHeader>(bytes, 0);
  std::memcpy(header.magic, kSessionMagic, sizeof(kSessionMagic));
  header.version = kSessionVersion;
  write_pod(bytes, 0, header);
  header.checksum = checksum(bytes.first(offsetof(SessionHeader, checksum)));
  write_pod(bytes, 0, header);
  const std::size_t end = bytes.size() / kSessionAlign * kSessionAlign - sizeof(SessionTrailer);
  auto trailer = read_pod<SessionTrailer>(bytes, end);
  std::memcpy(trailer.magic, kTrailerMagic, sizeof(kTrailerMagic));
  if (trailer.index_offset > end || trailer.index_bytes > end - trailer.index_offset) return;
  const std::span<std::uint8_t> index_bytes = bytes.subspan(trailer.index_offset, trailer.index_bytes);
  if (const auto index = read_index(index_bytes, trailer.index_offset); index.ok()) {
    for (const SessionPartIndex& part : index.value().parts) {
      for (const TileEntry& tile : part.tiles) {
        const std::span<std::uint8_t> extent = bytes.subspan(tile.offset, tile.bytes);
        const auto head = read_pod<TileHead>(extent, 0);
        if (head.head_bytes > extent.size() || head.head_bytes < sizeof(TileHead)) continue;
        const std::size_t item_bytes =
            std::min<std::size_t>(std::size_t{head.items} * sizeof(TileItem), head.head_bytes - sizeof(TileHead));
        std::uint64_t at = session_aligned(head.head_bytes);
        for (std::size_t item_at = head.head_bytes - item_bytes; item_at + sizeof(TileItem) <= head.head_bytes;
             item_at += sizeof(TileItem)) {
          auto item = read_pod<TileItem>(extent, item_at);
          if (at > extent.size() || item.bytes > extent.size() - at) break;
          item.checksum = checksum(extent.subspan(at, item.bytes));
          write_pod(extent, item_at, item);
          at += session_aligned(item.bytes);
        }
        const std::uint64_t sum = checksum(extent.first(head.head_bytes));
        // The entry in the index: found by its old bytes.
        std::uint8_t entry[sizeof(TileEntry)];
        std::memcpy(entry, &tile, sizeof(entry));
        const auto found = std::search(index_bytes.begin(), index_bytes.end(), std::begin(entry), std::end(entry));
        if (found == index_bytes.end()) continue;
        TileEntry sealed = tile;
        sealed.checksum = sum;
        write_pod(index_bytes, static_cast<std::size_t>(found - index_bytes.begin()), sealed);
      }
    }
  }
  trailer.index_checksum = checksum(index_bytes);
  trailer.offset = end;
  write_pod(bytes, end, trailer);
  trailer.checksum = checksum(bytes.subspan(end, offsetof(SessionTrailer, checksum)));
  write_pod(bytes, end, trailer);
}

}  // namespace kvarn
