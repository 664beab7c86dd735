#include "cache/state_save.hpp"

#include <algorithm>

#include "cache/state_sections.hpp"

namespace kvarn {

void StateSave::begin(std::uint32_t store, std::uint32_t stream) {
  end();
  is_open_ = true;
  first_store_ = store_ = store;
  stream_ = stream;
  version_ = map_.stream(stream).version;
  tokens_ = 0;
  token_of_cell_.assign(map_.cells(), 0);
}

void StateSave::end() {
  const bool is_current = is_open_ && version_ == map_.stream(stream_).version;
  if (is_current && store_ != first_store_ && side_sent_ < side_.size()) forget_samples(stores_[first_store_]);
  is_open_ = false;
}

void StateSave::forget_samples(RowStore& store) const {
  for (const std::uint32_t ref : ref_of_number_) store.forget_queries(map_.stream(stream_).refs[ref].tile);
}

bool StateSave::belongs(std::uint32_t store, std::uint32_t first_cell, std::uint32_t count) const {
  const bool is_first = store == first_store_;
  if (is_first && store_ != first_store_) return false;
  for (std::uint32_t cell = first_cell; cell < first_cell + count; ++cell) {
    if ((token_of_cell_[cell] == 0) != is_first) return false;
  }
  return true;
}

void StateSave::note(std::uint32_t store, std::uint32_t stream, std::uint32_t first_cell, std::uint32_t count) {
  const bool goes_on = is_open_ && stream == stream_ && version_ == map_.stream(stream).version;
  if (!goes_on || !belongs(store, first_cell, count)) begin(store, stream);
  if (store == first_store_) {
    for (std::uint32_t cell = first_cell; cell < first_cell + count; ++cell) token_of_cell_[cell] = ++tokens_;
    return;
  }
  if (store == store_) return;
  if (store_ == first_store_) {
    number_tiles();
    fill_side_channel(store);
  }
  store_ = store;
  plan_store(store);
}

void StateSave::number_tiles() {
  const Stream& stream = map_.stream(stream_);
  ref_of_number_.clear();
  for (std::uint32_t ref = 0; ref < stream.refs.size(); ++ref) {
    const std::vector<std::uint32_t>& cells = stream.refs[ref].cells;
    const auto read = [&](std::uint32_t cell) { return is_read(cell); };
    if (std::any_of(cells.begin(), cells.end(), read)) ref_of_number_.push_back(ref);
  }
  const auto tile_of = [&](std::uint32_t ref) -> const Tile& { return map_.tile(stream.refs[ref].tile); };
  std::sort(ref_of_number_.begin(), ref_of_number_.end(),
            [&](std::uint32_t left, std::uint32_t right) { return comes_before(tile_of(left), tile_of(right)); });
  number_of_ref_.assign(stream.refs.size(), SavedTile::kNoTile);
  for (std::uint32_t number = 0; number < ref_of_number_.size(); ++number) {
    number_of_ref_[ref_of_number_[number]] = number;
  }
  saved_tiles_.clear();
  for (std::uint32_t number = 0; number < ref_of_number_.size(); ++number) saved_tiles_.push_back(describe(number));
}

SavedTile StateSave::describe(std::uint32_t number) const {
  const Stream& stream = map_.stream(stream_);
  const TileRef& ref = stream.refs[ref_of_number_[number]];
  const Tile& tile = map_.tile(ref.tile);
  SavedTile saved;
  saved.start_rank = tile.start_rank;
  saved.number = number;
  saved.ranked = tile.ranked ? 1 : 0;
  std::uint32_t used = tile.used;
  // Rows behind the last one that is read belong to another sequence, or the engine has dropped them.
  while (tile.state == TileState::kOpen && used > 0 && !is_read(ref.cells[used - 1])) --used;
  saved.used = static_cast<std::uint16_t>(used);
  for (std::uint32_t other = 0; tile.parent_serial != 0 && other < ref_of_number_.size(); ++other) {
    if (map_.tile(stream.refs[ref_of_number_[other]].tile).serial != tile.parent_serial) continue;
    saved.parent = other;
    saved.parent_row = static_cast<std::uint16_t>(tile.parent_row);
  }
  return saved;
}

bool StateSave::travels(const RowStore& store, const TileRef& ref) const {
  const auto no_row_or_read = [&](std::uint32_t cell) { return cell == TileView::kNoCell || is_read(cell); };
  return store.sealed(ref.tile) && std::all_of(ref.cells.begin(), ref.cells.end(), no_row_or_read);
}

namespace {

void put_record(const RowStore& store, TileId tile, std::vector<std::uint8_t>& out) {
  put_section(out, SectionKind::kRecord, {store.view(tile).records, store.records_bytes()});
  const QueryHistory* history = store.history(tile).get();
  if (history != nullptr) put_section(out, SectionKind::kHistory, history->bytes());
}

// A section that begins with the number of a tile.
void put_numbered(SectionKind kind, std::uint32_t number, std::span<const std::uint8_t> bytes,
                  std::vector<std::uint8_t>& out) {
  std::vector<std::uint8_t> numbered;
  put_value(numbered, number);
  numbered.insert(numbered.end(), bytes.begin(), bytes.end());
  put_section(out, kind, numbered);
}

}  // namespace

std::vector<std::uint8_t> StateSave::own_sections(const RowStore& store, std::uint32_t number) const {
  std::vector<std::uint8_t> place;
  put_value(place, saved_tiles_[number]);
  std::vector<std::uint8_t> out;
  put_section(out, SectionKind::kTile, place);
  put_record(store, map_.stream(stream_).refs[ref_of_number_[number]].tile, out);
  return out;
}

void StateSave::fill_side_channel(std::uint32_t second_store) {
  const Stream& stream = map_.stream(stream_);
  const RowStore& first = stores_[first_store_];
  StateLayout layout;
  layout.tokens = tokens_;
  std::vector<std::uint8_t> rest;
  std::vector<bool> is_laid_out(ref_of_number_.size());
  for (std::uint32_t number = 0; number < ref_of_number_.size(); ++number) {
    const TileRef& ref = stream.refs[ref_of_number_[number]];
    is_laid_out[number] = !travels(stores_[second_store], ref);
    if (is_laid_out[number]) layout.tiles.push_back(saved_tiles_[number]);
    std::vector<std::uint8_t> bytes = first.sample_bytes(ref.tile);
    if (!bytes.empty()) put_numbered(SectionKind::kSamples, number, bytes, rest);
    if (!travels(first, ref)) continue;
    bytes.clear();
    put_record(first, ref.tile, bytes);
    put_numbered(SectionKind::kFirstTile, number, bytes, rest);
  }
  std::vector<std::uint32_t> cell_of_token(tokens_);
  for (std::uint32_t cell = 0; cell < token_of_cell_.size(); ++cell) {
    if (token_of_cell_[cell] != 0) cell_of_token[token_of_cell_[cell] - 1] = cell;
  }
  for (std::uint32_t token = 0; token < tokens_; ++token) {
    const Place place = stream.places[cell_of_token[token]];
    const std::uint32_t number = place ? number_of_ref_[place.ref()] : SavedTile::kNoTile;
    if (!place || !is_laid_out[number]) continue;
    layout.add_row(token, number, static_cast<std::uint16_t>(place.row));
  }
  side_.clear();
  put_section(side_, SectionKind::kLayout, layout.bytes());
  layout_bytes_ = side_.size();
  side_.insert(side_.end(), rest.begin(), rest.end());
  side_sent_ = 0;
  values_only_ = false;
}

std::size_t StateSave::room_in(const TravellingTile& tile) const {
  const std::size_t all = std::size_t{tile.live} * fragment_capacity(stores_[store_].row_values());
  return all > tile.payload.size() ? all - tile.payload.size() : 0;
}

void StateSave::plan_store(std::uint32_t id) {
  const Stream& stream = map_.stream(stream_);
  RowStore& store = stores_[id];
  travelling_.clear();
  for (std::uint32_t number = 0; number < ref_of_number_.size() && !values_only_; ++number) {
    const TileRef& ref = stream.refs[ref_of_number_[number]];
    if (!travels(store, ref)) continue;
    TravellingTile tile{number, ref.live, {}, own_sections(store, number), 0};
    const std::size_t capacity = std::size_t{ref.live} * fragment_capacity(store.row_values());
    if (tile.payload.size() <= capacity) travelling_.push_back(std::move(tile));
  }
  place_samples(store);
  place_side_channel();
  if (travelling_.empty()) forget_samples(store);
  finish_payloads();
}

void StateSave::place_samples(RowStore& store) {
  for (std::uint32_t number = static_cast<std::uint32_t>(ref_of_number_.size()); number-- > 0;) {
    const TileId id = map_.stream(stream_).refs[ref_of_number_[number]].tile;
    const std::vector<std::uint8_t> bytes = store.sample_bytes(id);
    if (bytes.empty()) continue;
    const std::size_t needed = kSectionHead + sizeof(number) + bytes.size();
    const auto tile = std::find_if(travelling_.rbegin(), travelling_.rend(),
                                   [&](const TravellingTile& one) { return room_in(one) >= needed; });
    if (tile == travelling_.rend()) {
      store.forget_queries(id);
    } else {
      put_numbered(SectionKind::kSamples, number, bytes, tile->payload);
    }
  }
}

void StateSave::place_side_channel() {
  constexpr std::size_t kHead = kSectionHead + sizeof(SidePiece);
  std::size_t room = 0;
  for (const TravellingTile& tile : travelling_) room += room_in(tile) > kHead ? room_in(tile) - kHead : 0;
  if (side_sent_ == 0 && room < layout_bytes_) {
    values_only_ = values_only_ || !travelling_.empty();
    travelling_.clear();
    return;
  }
  for (TravellingTile& tile : travelling_) {
    if (side_sent_ == side_.size()) return;
    if (room_in(tile) <= kHead) continue;
    const std::size_t count = std::min(side_.size() - side_sent_, room_in(tile) - kHead);
    std::vector<std::uint8_t> piece;
    put_value(piece, SidePiece{static_cast<std::uint32_t>(side_.size()), static_cast<std::uint32_t>(side_sent_)});
    piece.insert(piece.end(), side_.begin() + static_cast<std::ptrdiff_t>(side_sent_),
                 side_.begin() + static_cast<std::ptrdiff_t>(side_sent_ + count));
    put_section(tile.payload, SectionKind::kSide, piece);
    side_sent_ += count;
  }
}

void StateSave::finish_payloads() {
  const Stream& stream = map_.stream(stream_);
  travelling_of_number_.assign(ref_of_number_.size(), 0);
  for (std::uint32_t at = 0; at < travelling_.size(); ++at) {
    TravellingTile& tile = travelling_[at];
    travelling_of_number_[tile.number] = at + 1;
    tile.hash = hash_bytes(tile.payload, 0);
    const std::vector<std::uint32_t>& cells = stream.refs[ref_of_number_[tile.number]].cells;
    tile.index_of_row.resize(cells.size());
    std::uint16_t index = 0;
    for (std::size_t row = 0; row < cells.size(); ++row) {
      tile.index_of_row[row] = index;
      if (cells[row] != TileView::kNoCell) ++index;
    }
  }
}

std::optional<StateFragment> StateSave::fragment(std::uint32_t cell) const {
  if (!is_open_ || store_ == first_store_) return std::nullopt;
  const Place place = map_.stream(stream_).places[cell];
  const std::uint32_t number = place ? number_of_ref_[place.ref()] : SavedTile::kNoTile;
  if (number == SavedTile::kNoTile || travelling_of_number_[number] == 0) return std::nullopt;
  const TravellingTile& tile = travelling_[travelling_of_number_[number] - 1];
  const RowStore& store = stores_[store_];
  const auto size = static_cast<std::uint32_t>(tile.payload.size());
  const ShareRange share = share_range(size, tile.live, tile.index_of_row[place.row]);
  return StateFragment{static_cast<std::uint16_t>(place.row),
                       tile.index_of_row[place.row],
                       static_cast<std::uint16_t>(tile.live),
                       static_cast<std::uint16_t>(store.dim()),
                       static_cast<std::uint16_t>(map_.tile_tokens()),
                       code_kind(store.shape()),
                       size,
                       tile.hash,
                       {tile.payload.data() + share.first, share.size}};
}

}  // namespace kvarn
