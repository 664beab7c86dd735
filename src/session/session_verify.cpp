// The check of everything in a session: it is loaded the way a cache would take it, into stores that keep nothing.
#include <deque>
#include <numeric>

#include "base/checksum.hpp"
#include "cache/tile_filling.hpp"
#include "session/session.hpp"

namespace kvarn {
namespace {

constexpr std::uint32_t kWidths[] = {8, 6, 5, 4, 3, 2};

// Takes tiles one by one as a cache of just these layers would, and forgets them.
class CheckingTarget final : public SnapshotTarget {
 public:
  explicit CheckingTarget(const SessionPartIndex& part) : part_(part) {
    for (const StoreShape& shape : part.stores) {
      SlabPool& blocks = pools_.emplace_back(std::size_t{kBlockTokens} * shape.row_values * sizeof(HalfBits));
      RowStore& store = stores_.emplace_back(shape.side, shape.layer, shape.row_values, part.config, &blocks);
      if (shape.dim == 0) continue;
      // Records stay where they are: no pool of any width is ever asked for a slot.
      store.set_heads(shape.dim, &blocks);
      for (const std::uint32_t bits : kWidths) {
        if (part.mixed_widths && bits != shape.bits) store.add_width(bits, &blocks);
      }
      if (shape.query_heads != 0) store.set_query_heads(shape.query_heads);
    }
  }

  Status place_sequence(std::uint32_t, SequenceLayout& layout, std::span<const std::uint32_t>) override {
    layout.store_ids.resize(layout.stores.size());
    std::iota(layout.store_ids.begin(), layout.store_ids.end(), 0u);
    for (SequenceTile& tile : layout.tiles) tile.id = 0;
    return Status::kOk;
  }
  Status fill_tile(const SequenceLayout& layout, std::uint32_t tile, std::uint32_t store,
                   const TileContent& content) override {
    RowStore& own = stores_[store];
    Status status = fill_store(own, layout.tiles[tile], content);
    if (status == Status::kOk && own.is_unchecked(0) && !own.foreign_is_intact(0)) status = Status::kCorrupt;
    own.drop(0);
    return status;
  }
  // What a history spells was checked where it stands.
  std::shared_ptr<const QueryHistory> tile_history(const SequenceLayout&, std::uint32_t, std::uint32_t) const override {
    return nullptr;
  }
  Status finish_sequence(const SequenceLayout&) override { return Status::kOk; }
  void abandon_sequence(const SequenceLayout&, std::span<const std::uint32_t>) override {}

 private:
  const SessionPartIndex& part_;
  std::deque<SlabPool> pools_;
  std::deque<RowStore> stores_;
};

}  // namespace

SessionStatus Session::verify() const {
  for (std::uint32_t number = 0; number < index_.parts.size(); ++number) {
    const SessionPartIndex& part = index_.parts[number];
    CheckingTarget target(part);
    const std::vector<std::uint32_t> cells(part.tokens);
    const SessionStatus status = load(number, target, 0, cells, Records::kMapped);
    // The stores are those of the session: what does not fit them does not fit itself.
    if (status == SessionStatus::kOtherShape) return SessionStatus::kDamagedTile;
    if (status != SessionStatus::kOk) return status;
  }
  return SessionStatus::kOk;
}

}  // namespace kvarn
