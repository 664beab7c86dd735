#include "session/session_probe.hpp"

#include <numeric>

namespace kvarn {
namespace {

constexpr std::uint32_t kWidths[] = {8, 6, 5, 4, 3, 2};

}  // namespace

SessionProbe::SessionProbe(const SessionPartIndex& part) {
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

Status SessionProbe::place_sequence(std::uint32_t, SequenceLayout& layout, std::span<const std::uint32_t>) {
  layout.store_ids.resize(layout.stores.size());
  std::iota(layout.store_ids.begin(), layout.store_ids.end(), 0u);
  for (SequenceTile& tile : layout.tiles) tile.id = 0;
  return Status::kOk;
}

Status SessionProbe::fill_tile(const SequenceLayout& layout, std::uint32_t tile, std::uint32_t store,
                               const TileContent& content) {
  if (!wants(store)) return Status::kOk;
  RowStore& own = stores_[store];
  Status status = fill_store(own, layout.tiles[tile], content);
  if (status == Status::kOk && own.is_unchecked(0) && !own.foreign_is_intact(0)) status = Status::kCorrupt;
  if (status == Status::kOk) look(layout.tiles[tile], own);
  own.drop(0);
  return status;
}

std::shared_ptr<const QueryHistory> SessionProbe::tile_history(const SequenceLayout&, std::uint32_t,
                                                               std::uint32_t) const {
  return nullptr;
}

}  // namespace kvarn
