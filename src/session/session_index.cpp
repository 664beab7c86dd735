#include "session/session_index.hpp"

#include <algorithm>
#include <optional>

namespace kvarn {
namespace {

// Values of all KV heads of one row; no model comes near it.
constexpr std::uint32_t kMaxRowValues = 1u << 20;

std::size_t padded(std::size_t bytes) { return (bytes + 7) / 8 * 8; }

bool valid_baseline(std::uint32_t baseline) { return baseline <= static_cast<std::uint32_t>(BaselineFormat::kQ4_0); }

std::optional<CacheConfig> config_of(const PartHead& head) {
  if ((head.flags & ~kPartFlags) != 0) return std::nullopt;
  CacheConfig config;
  config.exact = (head.flags & kPartExact) != 0;
  config.seals_own_rows = (head.flags & kPartSealsOwnRows) != 0;
  config.version = (head.flags & kPartByteFields) != 0 ? RecordVersion::kBytes : RecordVersion::kHalves;
  config.k_bits = head.k_bits;
  config.v_bits = head.v_bits;
  config.sink_tokens = head.sink_tokens;
  config.tail_tokens = head.tail_tokens;
  config.tile_tokens = head.tile_tokens;
  const bool has_level = head.level != kNoNumber;
  if (has_level && head.level >= kEncoderLevelNames.size()) return std::nullopt;
  if (has_level) config.level = static_cast<EncoderLevel>(head.level);
  if (!valid_baseline(head.k_baseline) || !valid_baseline(head.v_baseline)) return std::nullopt;
  config.k_baseline = static_cast<BaselineFormat>(head.k_baseline);
  config.v_baseline = static_cast<BaselineFormat>(head.v_baseline);
  return validate(config) == Status::kOk ? std::optional(config) : std::nullopt;
}

PartHead head_of(const SessionPartIndex& part) {
  const CacheConfig& config = part.config;
  PartHead head{};
  head.tile_tokens = config.tile_tokens;
  head.sink_tokens = config.sink_tokens;
  head.tail_tokens = config.tail_tokens;
  head.k_bits = config.k_bits;
  head.v_bits = config.v_bits;
  head.level = config.level ? static_cast<std::uint32_t>(*config.level) : kNoNumber;
  head.flags = (config.exact ? kPartExact : 0u) | (config.seals_own_rows ? kPartSealsOwnRows : 0u) |
               (part.windowed ? kPartWindowed : 0u) | (config.version == RecordVersion::kBytes ? kPartByteFields : 0u);
  head.k_baseline = static_cast<std::uint32_t>(config.k_baseline);
  head.v_baseline = static_cast<std::uint32_t>(config.v_baseline);
  head.window_hits = part.window_hits;
  head.stores = static_cast<std::uint32_t>(part.stores.size());
  head.tiles = static_cast<std::uint32_t>(part.tiles.size());
  head.tokens = part.tokens;
  return head;
}

bool valid_entry(const TileEntry& tile, std::uint64_t end) {
  return tile.offset % kSessionAlign == 0 && tile.offset >= sizeof(SessionHeader) && tile.offset < end &&
         tile.bytes % kSessionAlign == 0 && tile.bytes >= sizeof(TileHead) && tile.bytes <= end - tile.offset;
}

bool take_store(std::span<const std::uint8_t>& bytes, const CacheConfig& config, StoreShape& shape) {
  StoreEntry entry;
  if (!take_pod(bytes, entry) || entry.side > 1) return false;
  shape = {entry.layer, static_cast<Side>(entry.side), entry.row_values, entry.dim, entry.query_heads, entry.bits};
  const std::uint32_t bits = shape.side == Side::kKey ? config.k_bits : config.v_bits;
  return entry.row_values <= kMaxRowValues && entry.bits == bits;
}

bool take_part(std::span<const std::uint8_t>& bytes, std::uint64_t end, SessionPartIndex& part) {
  PartHead head;
  if (!take_pod(bytes, head) || head.stores > kMaxStores) return false;
  const auto config = config_of(head);
  const std::uint64_t needed =
      std::uint64_t{head.stores} * sizeof(StoreEntry) + std::uint64_t{head.tiles} * sizeof(TileEntry);
  if (!config || needed > bytes.size()) return false;
  if (head.tokens > std::uint64_t{head.tiles} * head.tile_tokens) return false;
  part.config = *config;
  part.windowed = (head.flags & kPartWindowed) != 0;
  part.window_hits = head.window_hits;
  part.tokens = head.tokens;
  part.stores.resize(head.stores);
  part.tiles.resize(head.tiles);
  for (StoreShape& shape : part.stores) {
    if (!take_store(bytes, part.config, shape)) return false;
  }
  for (TileEntry& tile : part.tiles) {
    if (!take_pod(bytes, tile) || !valid_entry(tile, end)) return false;
  }
  // Each layer side once, and shapes that can be: what valid_layout() says of stores, said before there are tiles.
  SequenceLayout layout;
  layout.stores = part.stores;
  const auto is_same = [](const StoreShape& left, const StoreShape& right) {
    return left.layer == right.layer && left.side == right.side;
  };
  for (std::size_t at = 0; at < part.stores.size(); ++at) {
    const auto same = std::find_if(part.stores.begin(), part.stores.begin() + static_cast<std::ptrdiff_t>(at),
                                   [&](const StoreShape& other) { return is_same(other, part.stores[at]); });
    if (same != part.stores.begin() + static_cast<std::ptrdiff_t>(at)) return false;
  }
  return valid_layout(layout);
}

}  // namespace

SessionResult<SessionIndex> read_index(std::span<const std::uint8_t> bytes, std::uint64_t end) {
  SessionIndex index;
  IndexHead head;
  if (!take_pod(bytes, head) || head.magic != kIndexMagic || head.parts > kMaxParts)
    return SessionStatus::kDamagedIndex;
  index.commit = head.commit;
  if (head.model_bytes > kMaxModelBytes || padded(head.model_bytes) > bytes.size()) return SessionStatus::kDamagedIndex;
  index.model = bytes.first(head.model_bytes);
  bytes = bytes.subspan(padded(head.model_bytes));
  for (std::uint32_t number = 0; number < head.parts; ++number) {
    index.parts.emplace_back();
    if (!take_part(bytes, end, index.parts.back())) return SessionStatus::kDamagedIndex;
  }
  if (head.metadata_bytes != bytes.size()) return SessionStatus::kDamagedIndex;
  index.metadata = bytes;
  return index;
}

std::vector<std::uint8_t> write_index(const SessionIndex& index) {
  std::vector<std::uint8_t> out;
  IndexHead head{};
  head.magic = kIndexMagic;
  head.parts = static_cast<std::uint32_t>(index.parts.size());
  head.commit = index.commit;
  head.model_bytes = static_cast<std::uint32_t>(index.model.size());
  head.metadata_bytes = static_cast<std::uint32_t>(index.metadata.size());
  put_pod(out, head);
  put_span(out, index.model);
  out.resize(sizeof(head) + padded(index.model.size()));
  for (const SessionPartIndex& part : index.parts) {
    put_pod(out, head_of(part));
    for (const StoreShape& shape : part.stores) {
      put_pod(out, StoreEntry{shape.layer, static_cast<std::uint32_t>(shape.side), shape.row_values, shape.dim,
                              shape.query_heads, shape.bits});
    }
    for (const TileEntry& tile : part.tiles) put_pod(out, tile);
  }
  put_span(out, index.metadata);
  return out;
}

}  // namespace kvarn
