// What the fragments of one tile carry together through a state save (docs/decisions/0014): a list of sections, each a
// kind, a size and bytes. Knows the wire form only; everything read here may come from a damaged or foreign file.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>
#include <vector>

namespace kvarn {

enum class SectionKind : std::uint32_t {
  kTile = 1,       // SavedTile: which tile the fragments are rows of
  kRecord = 2,     // the records of all KV heads of the store at hand
  kHistory = 3,    // what is known of the queries up to the end of the tile
  kSamples = 4,    // tile number (u32), then the samples of queries of an open tile
  kSide = 5,       // SidePiece, then bytes of the side channel
  kLayout = 6,     // StateLayout: tiles that travel as values, and where their rows are
  kFirstTile = 7,  // tile number (u32), then record and history (as sections) of the first store
};

struct Section {
  SectionKind kind;
  std::span<const std::uint8_t> bytes;
};

constexpr std::size_t kSectionHead = 2 * sizeof(std::uint32_t);

template <class Value>
void put_value(std::vector<std::uint8_t>& out, const Value& value) {
  static_assert(std::is_trivially_copyable_v<Value> && std::has_unique_object_representations_v<Value>);
  const std::size_t at = out.size();
  out.resize(at + sizeof(Value));
  std::memcpy(out.data() + at, &value, sizeof(Value));
}

// Takes a value from the front of `bytes`; false if they are too few.
template <class Value>
bool take_value(std::span<const std::uint8_t>& bytes, Value& value) {
  static_assert(std::is_trivially_copyable_v<Value> && std::has_unique_object_representations_v<Value>);
  if (bytes.size() < sizeof(Value)) return false;
  std::memcpy(&value, bytes.data(), sizeof(Value));
  bytes = bytes.subspan(sizeof(Value));
  return true;
}

inline void put_section(std::vector<std::uint8_t>& out, SectionKind kind, std::span<const std::uint8_t> bytes) {
  put_value(out, static_cast<std::uint32_t>(kind));
  put_value(out, static_cast<std::uint32_t>(bytes.size()));
  out.insert(out.end(), bytes.begin(), bytes.end());
}

// The sections that `bytes` begin with, up to the first one that is cut short.
inline std::vector<Section> read_sections(std::span<const std::uint8_t> bytes) {
  std::vector<Section> sections;
  std::uint32_t kind = 0;
  std::uint32_t size = 0;
  while (take_value(bytes, kind) && take_value(bytes, size) && size <= bytes.size()) {
    sections.push_back({static_cast<SectionKind>(kind), bytes.first(size)});
    bytes = bytes.subspan(size);
  }
  return sections;
}

// A piece of the side channel, which the fragments of many tiles carry in the room that is left beside their own bytes.
struct SidePiece {
  std::uint32_t total;
  std::uint32_t offset;
};

}  // namespace kvarn
