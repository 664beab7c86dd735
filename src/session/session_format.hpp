// The bytes of a session file, format versions 1 and 2: docs/format/session.md is the contract. Plain structs,
// little-endian, without padding. Knows bytes only.
//
//   file   = header | commit | commit | ...
//   commit = tiles that are new | index | trailer        every piece begins at a multiple of 64 bytes
//   tile   = head | content | content | ...
//
// The newest whole commit counts: its trailer names its index, the index names every tile, wherever in the file it is.
#pragma once

#include <cstdint>
#include <type_traits>

namespace kvarn {

inline constexpr std::uint64_t kSessionAlign = 64;
inline constexpr std::uint32_t kSessionVersion = 1;
// The same, but records may have other code widths than their store. Written only where some have.
inline constexpr std::uint32_t kMixedWidthsVersion = 2;
constexpr bool known_version(std::uint32_t version) {
  return version == kSessionVersion || version == kMixedWidthsVersion;
}
// A carriage return and a line feed: a transfer that takes the file for text is noticed at once.
inline constexpr std::uint8_t kSessionMagic[8] = {'K', 'V', 'A', 'R', 'N', '\r', '\n', 0x1A};
inline constexpr std::uint8_t kTrailerMagic[8] = {'K', 'V', 'A', 'R', 'N', 'E', 'N', 'D'};
inline constexpr std::uint32_t kIndexMagic = 0x5844494Bu;  // "KIDX"
inline constexpr std::uint32_t kTileMagic = 0x4C49544Bu;   // "KTIL"
inline constexpr std::uint32_t kNoNumber = 0xFFFFFFFFu;

inline constexpr std::uint32_t kMaxParts = 64;
inline constexpr std::uint32_t kMaxStores = 4096;
inline constexpr std::uint32_t kMaxModelBytes = 65536;

struct SessionHeader {
  std::uint8_t magic[8];
  std::uint32_t version;
  std::uint32_t header_bytes;      // 64
  std::uint64_t first_commit_end;  // size of the file when its first commit was complete
  std::uint64_t reserved[4];       // zero
  std::uint64_t checksum;          // of the bytes before it
};

struct SessionTrailer {
  std::uint8_t magic[8];
  std::uint64_t commit;  // number of the commit, from 1
  std::uint64_t offset;  // of this trailer in the file
  std::uint64_t index_offset;
  std::uint64_t index_bytes;
  std::uint64_t index_checksum;
  std::uint64_t live_bytes;  // header, tiles of the index, index and trailer: the size of a file with this commit alone
  std::uint64_t checksum;    // of the bytes before it
};

struct IndexHead {
  std::uint32_t magic;
  std::uint32_t parts;
  std::uint64_t commit;
  std::uint32_t model_bytes;
  std::uint32_t metadata_bytes;
  std::uint64_t reserved[5];  // zero
};

struct PartHead {
  std::uint32_t tile_tokens, sink_tokens, tail_tokens;
  std::uint32_t k_bits, v_bits;
  std::uint32_t level;  // 0 to 4, in the order of EncoderLevel; kNoNumber: the default of each side's width
  std::uint32_t flags;  // PartFlag
  std::uint32_t k_baseline, v_baseline;
  std::uint32_t window_hits;
  std::uint32_t stores, tiles;
  std::uint64_t tokens;
  std::uint64_t reserved;  // zero
};

enum PartFlag : std::uint32_t { kPartExact = 1, kPartSealsOwnRows = 2, kPartWindowed = 4, kPartByteFields = 8 };
inline constexpr std::uint32_t kPartFlags = 15;  // all there are

struct StoreEntry {
  std::uint32_t layer, side, row_values, dim, query_heads, bits;  // StoreShape
};

struct TileEntry {
  std::uint64_t offset;
  std::uint64_t bytes;     // head and contents, a multiple of 64
  std::uint64_t checksum;  // of the head, which holds those of the contents
};

// Followed by live[tile_tokens / 8 rounded up to 8], bit r % 8 of byte r / 8: row r holds a token; then the ids (u32)
// and the positions (i32) of the tokens of the rows in use, zero where there is none; then the items.
struct TileHead {
  std::uint32_t magic;
  std::uint32_t head_bytes;  // up to the end of the items
  std::uint64_t start_rank, observed_rank;
  std::uint32_t parent, parent_row;
  std::uint32_t used;   // rows in use
  std::uint32_t state;  // 0 open, 1 some layers may have sealed it, 2 all have
  std::uint32_t ranked;
  std::uint32_t counted_row, counted;
  std::uint32_t items;
  std::uint32_t part, number;
};

enum class ItemKind : std::uint16_t {
  kRecords = 1,
  kRows = 2,
  kFinalRows = 3,
  kHistory = 4,
  kSharedHistory = 5,  // that of the tile `reference`, which holds it as kHistory; no bytes
  kSamples = 6,
};

// Contents follow the head in the order of the items, each at the next multiple of 64 bytes from the tile's start.
struct TileItem {
  std::uint32_t store;  // in the order of the index; items ascend by store, then kind, records after all others
  std::uint16_t kind;
  std::uint16_t bits;  // of records; otherwise 0
  std::uint32_t bytes;
  std::uint32_t reference;  // kNoNumber unless kSharedHistory
  std::uint64_t checksum;
};

template <class Pod>
inline constexpr bool kIsPlain = std::is_trivially_copyable_v<Pod>&& std::has_unique_object_representations_v<Pod>;
static_assert(kIsPlain<SessionHeader> && sizeof(SessionHeader) == 64);
static_assert(kIsPlain<SessionTrailer> && sizeof(SessionTrailer) == 64);
static_assert(kIsPlain<IndexHead> && sizeof(IndexHead) == 64);
static_assert(kIsPlain<PartHead> && sizeof(PartHead) == 64);
static_assert(kIsPlain<StoreEntry> && sizeof(StoreEntry) == 24);
static_assert(kIsPlain<TileEntry> && sizeof(TileEntry) == 24);
static_assert(kIsPlain<TileHead> && sizeof(TileHead) == 64);
static_assert(kIsPlain<TileItem> && sizeof(TileItem) == 24);

constexpr std::uint64_t session_aligned(std::uint64_t bytes) {
  return (bytes + kSessionAlign - 1) / kSessionAlign * kSessionAlign;
}

// Bytes of the rows that say which rows hold a token.
constexpr std::uint32_t live_bytes_of(std::uint32_t tile_tokens) { return (tile_tokens / 8 + 7) / 8 * 8; }

}  // namespace kvarn
