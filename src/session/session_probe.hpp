// Stores that take a session's tiles one by one as a cache of just its layers would, and forget them: for whoever wants
// to look at what a load would bring, without a cache.
#pragma once

#include <deque>

#include "cache/tile_filling.hpp"
#include "session/session.hpp"

namespace kvarn {

class SessionProbe : public SnapshotTarget {
 public:
  explicit SessionProbe(const SessionPartIndex& part);

  Status place_sequence(std::uint32_t stream, SequenceLayout& layout, std::span<const std::uint32_t> cells) override;
  // Fills the store, hands it to look(), and empties it.
  Status fill_tile(const SequenceLayout& layout, std::uint32_t tile, std::uint32_t store,
                   const TileContent& content) override;
  // Nothing: what a history spells is checked where it stands.
  std::shared_ptr<const QueryHistory> tile_history(const SequenceLayout& layout, std::uint32_t tile,
                                                   std::uint32_t store) const override;
  Status finish_sequence(const SequenceLayout&) override { return Status::kOk; }
  void abandon_sequence(const SequenceLayout&, std::span<const std::uint32_t>) override {}

 protected:
  ~SessionProbe() = default;
  // Whether tiles of this store are wanted; the others are passed over.
  virtual bool wants(std::uint32_t) const { return true; }
  // What one store holds of one tile, whole and valid, under the tile number 0.
  virtual void look(const SequenceTile& tile, const RowStore& store) = 0;

 private:
  std::deque<SlabPool> pools_;
  std::deque<RowStore> stores_;
};

}  // namespace kvarn
