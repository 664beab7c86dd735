// Lays out a commit: which tiles a file has already, where the new ones go, and their bytes in order. Knows offsets,
// not files.
#pragma once

#include <map>

#include "session/session.hpp"

namespace kvarn {

class SessionWriter {
 public:
  // commit: its number. The content must stay as it is until everything is written.
  SessionWriter(const SessionContent& content, std::uint64_t commit) : content_(content) { index_.commit = commit; }

  // Once: lays out a commit that begins at `start`, behind the session `previous`, or at the start of a new file
  // (nullptr, 0). kInvalidArgument, kOutOfMemory.
  SessionStatus plan(const Session* previous, std::uint64_t start);
  std::uint64_t end() const { return trailer_.offset + sizeof(SessionTrailer); }  // of the file after the commit
  std::uint64_t live_bytes() const { return trailer_.live_bytes; }
  std::uint64_t commit() const { return trailer_.commit; }
  // Of the format that the file needs.
  std::uint32_t version() const { return has_other_widths_ ? kMixedWidthsVersion : kSessionVersion; }
  std::uint32_t new_tiles() const { return static_cast<std::uint32_t>(new_tiles_.size()); }

  // Writes everything from `start` on but the trailer, then the trailer: a file is safe if the first is on disk before
  // the second begins. False: the sink stopped.
  bool write_body(const ByteSink& sink) const;
  bool write_trailer(const ByteSink& sink) const;

 private:
  struct NewTile {
    std::uint32_t part;
    std::uint32_t number;
    std::vector<std::uint8_t> head;
  };
  using Known = std::map<std::uint64_t, TileEntry>;  // tiles of the previous commit, by checksum
  // Numbers of tiles whose history others share, by store and history.
  using Histories = std::map<std::pair<std::uint32_t, const QueryHistory*>, std::uint32_t>;

  SessionStatus plan_part(std::uint32_t part, const Known& known);
  // The items of a tile, and the bytes of all their contents with the room between them.
  std::uint64_t list_items(std::uint32_t part, std::uint32_t number, Histories& histories,
                           std::vector<TileItem>& items);
  bool write_tile(const NewTile& tile, const ByteSink& sink) const;
  void plan_end(std::uint64_t start);

  const SessionContent& content_;
  std::vector<SequenceLayout> layouts_;  // by part
  SessionIndex index_;
  std::vector<std::uint8_t> index_bytes_;
  std::vector<NewTile> new_tiles_;
  bool has_other_widths_ = false;
  std::uint64_t start_ = 0;
  std::uint64_t at_ = 0;  // where the next new piece goes
  SessionTrailer trailer_{};
};

}  // namespace kvarn
