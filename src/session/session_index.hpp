// The index of a commit: which model, which parts of which shape, where every tile is. Reads it from untrusted bytes
// and writes it. Knows nothing of caches at work.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "cache/snapshot.hpp"
#include "session/session_format.hpp"
#include "session/session_status.hpp"

namespace kvarn {

// One sequence of one cache.
struct SessionPartIndex {
  CacheConfig config;
  bool windowed = false;
  std::uint32_t window_hits = 0;
  std::uint64_t tokens = 0;
  std::vector<StoreShape> stores;
  std::vector<TileEntry> tiles;  // by number
  bool mixed_widths = false;     // records may have other widths than their stores: a file of version 2
};

struct SessionIndex {
  std::uint64_t commit = 0;
  std::span<const std::uint8_t> model;     // points into the bytes it was read from
  std::span<const std::uint8_t> metadata;  // likewise
  std::vector<SessionPartIndex> parts;
};

// end: the offset of the index; every tile must lie between the header and it. kDamagedIndex.
SessionResult<SessionIndex> read_index(std::span<const std::uint8_t> bytes, std::uint64_t end);
std::vector<std::uint8_t> write_index(const SessionIndex& index);

// Appends bytes, and a plain struct.
inline void put_span(std::vector<std::uint8_t>& out, std::span<const std::uint8_t> bytes) {
  const std::size_t at = out.size();
  out.resize(at + bytes.size());
  if (!bytes.empty()) std::memcpy(out.data() + at, bytes.data(), bytes.size());
}
template <class Pod>
void put_pod(std::vector<std::uint8_t>& out, const Pod& pod) {
  static_assert(kIsPlain<Pod>);
  put_span(out, {reinterpret_cast<const std::uint8_t*>(&pod), sizeof(Pod)});
}

// Takes a plain struct from the front of `bytes`; false if they are too few.
template <class Pod>
bool take_pod(std::span<const std::uint8_t>& bytes, Pod& pod) {
  static_assert(kIsPlain<Pod>);
  if (bytes.size() < sizeof(Pod)) return false;
  std::memcpy(&pod, bytes.data(), sizeof(Pod));
  bytes = bytes.subspan(sizeof(Pod));
  return true;
}

}  // namespace kvarn
