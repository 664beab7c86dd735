// One state save in progress. An engine reads the rows of a sequence store by store, in one or many ranges of cells,
// and never says which sequence it is or when it is done: the reads of the first store tell which cells belong to the
// save (its rows go as values), and from the second store on the tiles that lie wholly in these cells travel as their
// records. What has no row of its own goes through a side channel in the room that is left in their fragments: how
// tiles lie, samples of the queries of open tiles, and the records of the first store.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "cache/cell_map.hpp"
#include "cache/row_store.hpp"
#include "cache/state_fragment.hpp"
#include "cache/state_layout.hpp"

namespace kvarn {

class StateSave {
 public:
  StateSave(const CellMap& map, std::deque<RowStore>& stores) : map_(map), stores_(stores) {}

  // Notes that rows of these cells are read now, of all of them before fragment() is asked for any.
  void note(std::uint32_t store, std::uint32_t stream, std::uint32_t first_cell, std::uint32_t count);
  // The fragment that the row of a cell of the last note() travels as; nothing if it goes as values. It points into
  // this object and is good until the next note().
  std::optional<StateFragment> fragment(std::uint32_t cell) const;
  // The engine goes on: the next read begins another save. Samples of the first store that found no room are forgotten.
  void end();
  // As end(), but nothing of the map or the stores is touched.
  void drop() { is_open_ = false; }

 private:
  // A tile that is wholly read.
  struct TravellingTile {
    std::uint32_t number = 0;
    std::uint32_t live = 0;
    std::vector<std::uint16_t> index_of_row;  // among the rows that hold a token
    std::vector<std::uint8_t> payload;        // of the store at hand
    std::uint64_t hash = 0;
  };

  void begin(std::uint32_t store, std::uint32_t stream);
  // True if all these cells are in the save, or, while it gathers, none of them.
  bool belongs(std::uint32_t store, std::uint32_t first_cell, std::uint32_t count) const;
  bool is_read(std::uint32_t cell) const { return cell != TileView::kNoCell && token_of_cell_[cell] != 0; }
  // Once the cells of the save are known: numbers its tiles in the order of their ranks, and describes them.
  void number_tiles();
  SavedTile describe(std::uint32_t number) const;
  // Decides how the tiles go in one store, and fills their payloads.
  void plan_store(std::uint32_t store);
  void fill_side_channel(std::uint32_t second_store);
  bool travels(const RowStore& store, const TileRef& ref) const;
  std::vector<std::uint8_t> own_sections(const RowStore& store, std::uint32_t number) const;
  // Puts the samples of open tiles where room is left, from the last tile to the first; forgets those that find none.
  void place_samples(RowStore& store);
  void place_side_channel();
  void forget_samples(RowStore& store) const;
  std::size_t room_in(const TravellingTile& tile) const;
  void finish_payloads();

  const CellMap& map_;
  std::deque<RowStore>& stores_;
  bool is_open_ = false;
  std::uint32_t first_store_ = 0;
  std::uint32_t store_ = 0;  // of the last note
  std::uint32_t stream_ = 0;
  std::uint64_t version_ = 0;                        // of the stream's map
  std::uint32_t tokens_ = 0;                         // in the save
  std::vector<std::uint32_t> token_of_cell_;         // number of the token + 1; 0: not in the save
  std::vector<std::uint32_t> ref_of_number_;         // the tiles in the save, by number
  std::vector<SavedTile> saved_tiles_;               // by number
  std::vector<std::uint32_t> number_of_ref_;         // SavedTile::kNoTile: not in the save
  std::vector<TravellingTile> travelling_;           // in the store at hand
  std::vector<std::uint32_t> travelling_of_number_;  // index + 1; 0: goes as values
  std::vector<std::uint8_t> side_;
  std::size_t layout_bytes_ = 0;  // how much of side_ must be sent with the first payloads
  std::size_t side_sent_ = 0;
  bool values_only_ = false;
};

}  // namespace kvarn
