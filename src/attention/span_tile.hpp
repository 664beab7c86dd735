// One tile of a span as a block of queries meets it. The scores of a block are [rows, columns]: a row stands for a
// query and head, a column for a row of one of the span's tiles.
#pragma once

#include <cstddef>
#include <cstdint>

#include "attention/attend.hpp"

namespace kvarn {

struct SpanTile {
  const TileView* view;
  std::size_t column;     // of the tile's row 0
  std::size_t width;      // columns it takes, a multiple of 16
  std::size_t first_row;  // rows before it, a multiple of 16, and from end_row on are seen by no query
  std::size_t end_row;
  bool sees_all;                // every active query sees every row of the tile, and it has no gaps
  bool has_hidden;              // some row from first_row to end_row may be hidden from an active query
  bool has_masks;               // the masks of the active queries are in the block's masks; else they are all zero
  const std::uint32_t* active;  // queries of the block that see something of it, ascending
  std::size_t active_count;

  // Columns that are computed: rows first_row to end_row, in whole blocks of 16.
  std::size_t lanes() const { return (end_row - first_row + 15) / 16 * 16; }
};

// Calls run(query, count) for every run of neighbouring active queries.
template <class Run>
void for_each_run(const SpanTile& tile, Run&& run) {
  for (std::size_t first = 0; first < tile.active_count;) {
    std::size_t end = first + 1;
    while (end < tile.active_count && tile.active[end] == tile.active[end - 1] + 1) ++end;
    run(std::size_t{tile.active[first]}, end - first);
    first = end;
  }
}

}  // namespace kvarn
