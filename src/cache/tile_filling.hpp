// What a store takes of a tile that comes from elsewhere (snapshot.hpp), and the check of records that were left where
// they are. Shared by the caches and by whoever checks a snapshot without one; knows stores and tiles.
#pragma once

#include <span>

#include "base/runner.hpp"
#include "cache/row_store.hpp"
#include "cache/snapshot.hpp"

namespace kvarn {

// Puts a content into the tile `tile.id` of a store. Errors as SnapshotTarget::fill_tile().
Status fill_store(RowStore& store, const SequenceTile& tile, const TileContent& content);

struct UncheckedTile {
  RowStore* store;
  TileId tile;
};
// Looks at records of somebody else, each once, on the runner's team; a tile may be named twice. kCorrupt: some are not
// the bytes they were, or not valid; they are looked at again next time.
Status check_records(std::span<const UncheckedTile> unchecked, const Runner& runner);

}  // namespace kvarn
