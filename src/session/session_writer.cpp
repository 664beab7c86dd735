#include "session/session_writer.hpp"

#include <algorithm>
#include <cstddef>

#include "base/checksum.hpp"

namespace kvarn {
namespace {

constexpr std::uint8_t kZeros[kSessionAlign] = {};

// Writes bytes and zeros up to the next multiple of 64 of their size.
bool write_aligned(std::span<const std::uint8_t> bytes, const ByteSink& sink) {
  const std::size_t padding = session_aligned(bytes.size()) - bytes.size();
  return (bytes.empty() || sink.write(sink.context, bytes.data(), bytes.size())) &&
         (padding == 0 || sink.write(sink.context, kZeros, padding));
}

template <class Pod>
std::span<const std::uint8_t> bytes_of(const Pod& pod) {
  static_assert(kIsPlain<Pod>);
  return {reinterpret_cast<const std::uint8_t*>(&pod), sizeof(Pod)};
}

// A plain struct whose last member is the checksum of those before it.
template <class Pod>
void seal_pod(Pod& pod) {
  static_assert(offsetof(Pod, checksum) + sizeof(std::uint64_t) == sizeof(Pod));
  pod.checksum = checksum(bytes_of(pod).first(offsetof(Pod, checksum)));
}

}  // namespace

SessionStatus SessionWriter::plan(const Session* previous, std::uint64_t start) {
  const bool fits = content_.parts.size() <= kMaxParts && content_.model.size() <= kMaxModelBytes &&
                    content_.metadata.size() <= UINT32_MAX;
  if (!fits) return SessionStatus::kInvalidArgument;
  start_ = start;
  at_ = start == 0 ? sizeof(SessionHeader) : start;
  Known known;
  if (previous != nullptr) {
    for (const SessionPartIndex& part : previous->index().parts) {
      for (const TileEntry& tile : part.tiles) known.emplace(tile.checksum, tile);
    }
  }
  index_.model = content_.model;
  index_.metadata = content_.metadata;
  for (std::uint32_t part = 0; part < content_.parts.size(); ++part) {
    if (const SessionStatus status = plan_part(part, known); status != SessionStatus::kOk) return status;
  }
  plan_end(start);
  return SessionStatus::kOk;
}

void SessionWriter::plan_end(std::uint64_t start) {
  index_bytes_ = write_index(index_);
  std::memcpy(trailer_.magic, kTrailerMagic, sizeof(kTrailerMagic));
  trailer_.commit = index_.commit;
  trailer_.index_offset = at_;
  trailer_.index_bytes = index_bytes_.size();
  trailer_.index_checksum = checksum(index_bytes_);
  trailer_.offset = at_ + session_aligned(index_bytes_.size());
  trailer_.live_bytes = sizeof(SessionHeader) + session_aligned(index_bytes_.size()) + sizeof(SessionTrailer);
  for (const SessionPartIndex& part : index_.parts) {
    for (const TileEntry& tile : part.tiles) trailer_.live_bytes += tile.bytes;
  }
  seal_pod(trailer_);
  start_ = start;
}

SessionStatus SessionWriter::plan_part(std::uint32_t part, const Known& known) {
  const SessionPart& source = content_.parts[part];
  std::vector<std::uint32_t> cells;
  for (const SessionToken& token : source.tokens) cells.push_back(token.cell);
  auto layout = source.cache->sequence_layout(source.stream, cells);
  if (!layout.ok()) {
    return layout.status() == Status::kOutOfMemory ? SessionStatus::kOutOfMemory
           : layout.status() == Status::kCorrupt   ? SessionStatus::kDamagedRecord
                                                   : SessionStatus::kInvalidArgument;
  }
  layouts_.push_back(std::move(layout.value()));
  const SequenceLayout& tiles = layouts_.back();
  if (tiles.stores.size() > kMaxStores) return SessionStatus::kInvalidArgument;
  index_.parts.push_back(
      {source.cache->config(), tiles.windowed, tiles.window_hits, source.tokens.size(), tiles.stores, {}, false});
  Histories histories;
  for (std::uint32_t number = 0; number < tiles.tiles.size(); ++number) {
    const SequenceTile& tile = tiles.tiles[number];
    std::vector<SessionTokenId> tokens(tile.used());
    for (std::uint32_t row = 0; row < tile.used(); ++row) {
      if (tile.tokens[row] == SequenceTile::kNone) continue;
      const SessionToken& token = source.tokens[tile.tokens[row]];
      tokens[row] = {token.id, token.position};
    }
    std::vector<TileItem> items;
    const std::uint64_t content_bytes = list_items(part, number, histories, items);
    NewTile made{part, number, write_tile_head(tile, {part, number, 0}, tiles.tile_tokens, tokens, items)};
    TileEntry entry{at_, session_aligned(made.head.size()) + content_bytes, checksum(made.head)};
    const auto same = known.find(entry.checksum);
    if (same != known.end() && same->second.bytes == entry.bytes) {
      entry.offset = same->second.offset;
    } else {
      at_ += entry.bytes;
      new_tiles_.push_back(std::move(made));
    }
    index_.parts.back().tiles.push_back(entry);
  }
  return SessionStatus::kOk;
}

std::uint64_t SessionWriter::list_items(std::uint32_t part, std::uint32_t number, Histories& histories,
                                        std::vector<TileItem>& items) {
  const SequenceLayout& layout = layouts_[part];
  std::uint64_t total = 0;
  ContentBuffer buffer;
  const auto add = [&](std::uint32_t store, ItemKind kind, std::span<const std::uint8_t> bytes, std::uint64_t sum) {
    items.push_back(
        {store, static_cast<std::uint16_t>(kind), 0, static_cast<std::uint32_t>(bytes.size()), kNoNumber, sum});
    total += session_aligned(bytes.size());
  };
  for (std::uint32_t store = 0; store < layout.stores.size(); ++store) {
    const TileContent content = content_.parts[part].cache->tile_content(layout, number, store, buffer);
    if (content.kind != ContentKind::kNothing) {
      const std::uint64_t sum = content.records_checksum ? *content.records_checksum : checksum(content.bytes);
      add(store, static_cast<ItemKind>(content.kind), content.bytes, sum);
      if (content.kind == ContentKind::kRecords) {
        const std::uint32_t bits = content.bits == 0 ? layout.stores[store].bits : content.bits;
        items.back().bits = static_cast<std::uint16_t>(bits);
        has_other_widths_ = has_other_widths_ || bits != layout.stores[store].bits;
      }
    }
    if (content.history != nullptr) {
      const auto [first, is_new] = histories.try_emplace({store, content.history.get()}, number);
      const std::span<const std::uint8_t> bytes = content.history->bytes();
      add(store, is_new ? ItemKind::kHistory : ItemKind::kSharedHistory, is_new ? bytes : bytes.first(0),
          checksum(is_new ? bytes : bytes.first(0)));
      if (!is_new) items.back().reference = first->second;
    }
    if (!content.samples.empty()) add(store, ItemKind::kSamples, content.samples, checksum(content.samples));
  }
  std::stable_partition(items.begin(), items.end(), [](const TileItem& item) {
    return item.kind != static_cast<std::uint16_t>(ItemKind::kRecords);
  });
  return total;
}

bool SessionWriter::write_tile(const NewTile& tile, const ByteSink& sink) const {
  if (!write_aligned(tile.head, sink)) return false;
  const SequenceLayout& layout = layouts_[tile.part];
  const SequenceTile& source = layout.tiles[tile.number];
  // The head lists what is written, in the order in which the stores tell it.
  const std::size_t first_item = sizeof(TileHead) + live_bytes_of(layout.tile_tokens) + std::size_t{source.used()} * 8;
  std::span<const std::uint8_t> items = std::span(tile.head).subspan(first_item);
  ContentBuffer buffer;
  TileContent content;
  std::uint32_t store = kNoNumber;
  for (TileItem item; take_pod(items, item);) {
    if (item.store != store) {
      content = content_.parts[tile.part].cache->tile_content(layout, tile.number, item.store, buffer);
    }
    store = item.store;
    const auto kind = static_cast<ItemKind>(item.kind);
    if (kind == ItemKind::kSharedHistory) continue;
    const std::span<const std::uint8_t> bytes = kind == ItemKind::kHistory   ? content.history->bytes()
                                                : kind == ItemKind::kSamples ? content.samples
                                                                             : content.bytes;
    if (!write_aligned(bytes, sink)) return false;
  }
  return true;
}

bool SessionWriter::write_body(const ByteSink& sink) const {
  if (start_ == 0) {
    SessionHeader header{};
    std::memcpy(header.magic, kSessionMagic, sizeof(kSessionMagic));
    header.version = version();
    header.header_bytes = sizeof(header);
    header.first_commit_end = end();
    seal_pod(header);
    if (!write_aligned(bytes_of(header), sink)) return false;
  }
  for (const NewTile& tile : new_tiles_) {
    if (!write_tile(tile, sink)) return false;
  }
  return write_aligned(index_bytes_, sink);
}

bool SessionWriter::write_trailer(const ByteSink& sink) const { return write_aligned(bytes_of(trailer_), sink); }

}  // namespace kvarn
