// Opening a session: header, newest whole commit, index.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <optional>

#include "base/checksum.hpp"
#include "session/session.hpp"

namespace kvarn {
namespace {

// Trailers whose index is damaged that are passed over: a file that was torn has one at most.
constexpr int kMaxDamaged = 8;

// Of a tile: its head, unless it has hundreds of stores.
constexpr std::uint64_t kFirstRead = 4096;

template <class Pod>
Pod pod_at(std::span<const std::uint8_t> bytes, std::uint64_t offset) {
  Pod pod;
  std::memcpy(&pod, bytes.data() + offset, sizeof(Pod));
  return pod;
}

SessionStatus check_header(std::span<const std::uint8_t> bytes) {
  const bool begins =
      bytes.size() >= sizeof(kSessionMagic) && std::memcmp(bytes.data(), kSessionMagic, sizeof(kSessionMagic)) == 0;
  if (!begins) return SessionStatus::kNotASession;
  if (bytes.size() < sizeof(SessionHeader)) return SessionStatus::kDamagedHeader;
  const auto header = pod_at<SessionHeader>(bytes, 0);
  if (!known_version(header.version)) return SessionStatus::kUnknownVersion;
  const bool intact = checksum(bytes.first(offsetof(SessionHeader, checksum))) == header.checksum;
  return intact && header.header_bytes == sizeof(header) ? SessionStatus::kOk : SessionStatus::kDamagedHeader;
}

// The trailer at this offset, if there is one that says so itself.
std::optional<SessionTrailer> trailer_at(std::span<const std::uint8_t> bytes, std::uint64_t offset) {
  if (std::memcmp(bytes.data() + offset, kTrailerMagic, sizeof(kTrailerMagic)) != 0) return std::nullopt;
  const auto trailer = pod_at<SessionTrailer>(bytes, offset);
  const bool intact = checksum(bytes.subspan(offset, offsetof(SessionTrailer, checksum))) == trailer.checksum;
  const bool fits = trailer.offset == offset && trailer.index_offset % kSessionAlign == 0 &&
                    trailer.index_offset >= sizeof(SessionHeader) && trailer.index_offset < offset &&
                    trailer.index_bytes <= offset - trailer.index_offset;
  return intact && fits ? std::optional(trailer) : std::nullopt;
}

SessionResult<SessionTrailer> newest_trailer(std::span<const std::uint8_t> bytes) {
  int damaged = 0;
  for (std::uint64_t at = bytes.size() / kSessionAlign * kSessionAlign; at > sizeof(SessionHeader);) {
    at -= kSessionAlign;
    const auto trailer = trailer_at(bytes, at);
    if (!trailer) continue;
    if (checksum(bytes.subspan(trailer->index_offset, trailer->index_bytes)) == trailer->index_checksum)
      return *trailer;
    if (++damaged == kMaxDamaged) return SessionStatus::kDamagedIndex;
  }
  return damaged > 0 ? SessionStatus::kDamagedIndex : SessionStatus::kNoCommit;
}

}  // namespace

SessionResult<Session> Session::open(const char* path) {
  const int descriptor = ::open(path, O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return errno == ENOENT ? SessionStatus::kNotFound : SessionStatus::kReadFailed;
  auto bytes = SessionBytes::map_file(descriptor);
  close(descriptor);
  return bytes.ok() ? open(bytes.value()) : SessionResult<Session>(bytes.status());
}

SessionResult<Session> Session::open(std::shared_ptr<const SessionBytes> shared) {
  const std::span<const std::uint8_t> bytes = shared->bytes();
  if (const SessionStatus status = check_header(bytes); status != SessionStatus::kOk) return status;
  const auto trailer = newest_trailer(bytes);
  if (!trailer.ok()) return trailer.status();
  const SessionTrailer& found = trailer.value();
  auto index = read_index(bytes.subspan(found.index_offset, found.index_bytes), found.index_offset);
  if (!index.ok()) return index.status();
  if (index.value().commit != found.commit) return SessionStatus::kDamagedIndex;
  const std::uint32_t version = pod_at<SessionHeader>(bytes, 0).version;
  for (SessionPartIndex& part : index.value().parts) part.mixed_widths = version == kMixedWidthsVersion;
  Session session(std::move(shared), std::move(index.value()));
  session.version_ = version;
  session.end_ = found.offset + sizeof(SessionTrailer);
  session.live_bytes_ = found.live_bytes;
  session.index_bytes_ = found.index_bytes;
  return session;
}

SessionResult<std::vector<SessionTile>> Session::tiles(std::uint32_t part) const {
  if (part >= index_.parts.size()) return SessionStatus::kInvalidArgument;
  const SessionPartIndex& content = index_.parts[part];
  bytes_->expect(SessionBytes::Access::kScattered);
  for (const TileEntry& tile : content.tiles) bytes_->prefetch(tile.offset, kFirstRead);
  std::vector<SessionTile> tiles;
  TilePlace place{part, 0, 0};
  for (; place.number < content.tiles.size(); ++place.number) {
    auto tile = read_tile(bytes_->bytes(), content, place);
    if (!tile.ok()) return tile.status();
    place.first_token += static_cast<std::uint32_t>(tile.value().tokens.size());
    tiles.push_back(std::move(tile.value()));
  }
  return place.first_token == content.tokens ? SessionResult<std::vector<SessionTile>>(std::move(tiles))
                                             : SessionStatus::kDamagedTile;
}

SessionResult<std::vector<SessionTokenId>> Session::tokens(std::uint32_t part) const {
  const auto tiles = this->tiles(part);
  if (!tiles.ok()) return tiles.status();
  std::vector<SessionTokenId> tokens;
  for (const SessionTile& tile : tiles.value()) tokens.insert(tokens.end(), tile.tokens.begin(), tile.tokens.end());
  return tokens;
}

}  // namespace kvarn
