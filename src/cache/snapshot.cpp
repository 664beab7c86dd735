#include "cache/snapshot.hpp"

#include <algorithm>

namespace kvarn {
namespace {

// Ranks beyond this are no cache's: far more tokens than cells.
constexpr std::uint64_t kMaxRank = std::uint64_t{1} << 32;
// Query heads of one KV head; a layout that tells more is none of a model.
constexpr std::uint32_t kMaxGroup = 1024;

bool valid_shape(const StoreShape& shape) {
  if (shape.row_values == 0 || shape.row_values % 16 != 0 || !valid_code_bits(shape.bits)) return false;
  if (shape.dim == 0) return shape.query_heads == 0;
  if (shape.dim % 16 != 0 || shape.dim > kMaxRows || shape.row_values % shape.dim != 0) return false;
  const std::uint32_t kv_heads = shape.row_values / shape.dim;
  return shape.query_heads % kv_heads == 0 && shape.query_heads / kv_heads <= kMaxGroup;
}

bool valid_tile(const SequenceLayout& layout, std::uint32_t number) {
  const SequenceTile& tile = layout.tiles[number];
  const bool has_token = std::any_of(tile.tokens.begin(), tile.tokens.end(),
                                     [](std::uint32_t token) { return token != SequenceTile::kNone; });
  const bool complete = tile.used() == layout.tile_tokens;
  const bool fits = has_token && tile.used() <= layout.tile_tokens && (complete || tile.state == TileState::kOpen);
  const bool follows = tile.parent == SequenceTile::kNone ||
                       (tile.parent < number && tile.parent_row < layout.tiles[tile.parent].used());
  return fits && follows && tile.start_rank < kMaxRank && tile.observed_rank < 2 * kMaxRank;
}

}  // namespace

bool valid_layout(const SequenceLayout& layout) {
  bool valid = std::all_of(layout.stores.begin(), layout.stores.end(), valid_shape);
  for (std::uint32_t number = 0; valid && number < layout.tiles.size(); ++number) valid = valid_tile(layout, number);
  return valid;
}

}  // namespace kvarn
