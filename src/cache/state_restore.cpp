#include "cache/state_restore.hpp"

#include <algorithm>

#include "cache/state_sections.hpp"

namespace kvarn {

std::span<const std::uint8_t> ArrivingPayload::share_of(const Piece& piece) const {
  if (bytes.empty()) return piece.share;
  const ShareRange share = share_range(bytes.size(), piece.fragment.fragments, piece.fragment.index);
  return std::span(bytes).subspan(share.first, share.size);
}

void StateRestore::begin(std::uint32_t store, std::uint32_t stream) {
  close();
  is_open_ = true;
  stream_ = stream;
  first_store_ = last_store_ = store;
}

bool StateRestore::arrive(std::uint32_t store, std::uint32_t cell) {
  if (store != last_store_) incomplete_.clear();
  last_store_ = store;
  const bool is_new = is_planned_.emplace(cell, false).second;
  if (is_new) cells_.push_back(cell);
  return is_new;
}

bool StateRestore::add(std::uint32_t store, std::uint32_t cell, const StateFragment& fragment) {
  auto known = incomplete_.find(fragment.payload_hash);
  if (known == incomplete_.end()) {
    if (incomplete_.size() >= kMaxIncomplete) return false;
    known = incomplete_.emplace(fragment.payload_hash, payloads_.size()).first;
    payloads_.push_back({store, {}, {}, false});
  }
  ArrivingPayload& payload = payloads_[known->second];
  payload.pieces.push_back({fragment, {fragment.share.begin(), fragment.share.end()}, cell});
  payload.pieces.back().fragment.share = {};
  if (payload.pieces.size() == fragment.fragments) {
    complete(known->second);
    incomplete_.erase(known);
  }
  return true;
}

void StateRestore::complete(std::size_t index) {
  ArrivingPayload& payload = payloads_[index];
  const StateFragment& one = payload.pieces.front().fragment;
  std::vector<const ArrivingPayload::Piece*> by_index(one.fragments);
  for (const ArrivingPayload::Piece& piece : payload.pieces) {
    const bool is_alike = piece.fragment.fragments == one.fragments &&
                          piece.fragment.payload_bytes == one.payload_bytes && piece.fragment.index < one.fragments;
    if (!is_alike || by_index[piece.fragment.index] != nullptr) return;
    by_index[piece.fragment.index] = &piece;
  }
  std::vector<std::uint8_t> bytes;
  bytes.reserve(one.payload_bytes);
  for (const ArrivingPayload::Piece* piece : by_index) {
    bytes.insert(bytes.end(), piece->share.begin(), piece->share.end());
  }
  if (bytes.size() != one.payload_bytes || hash_bytes(bytes, 0) != one.payload_hash) return;
  payload.bytes = std::move(bytes);
  for (ArrivingPayload::Piece& piece : payload.pieces) piece.share = {};
}

void StateRestore::close() {
  is_open_ = false;
  cells_ = {};
  is_planned_.clear();
  payloads_ = {};
  incomplete_.clear();
  side_pieces_.clear();
  side_ = {};
}

bool StateRestore::takes_rows(const SavedTile& saved, const std::vector<RestorePlan::Row>& rows) {
  if (saved.used > tile_tokens_ || saved.start_rank >= kMaxRank || rows.empty()) return false;
  std::vector<bool> is_taken(tile_tokens_);
  for (const RestorePlan::Row& row : rows) {
    const auto cell = is_planned_.find(row.cell);
    if (row.row >= saved.used || is_taken[row.row] || cell == is_planned_.end() || cell->second) return false;
    is_taken[row.row] = true;
  }
  for (const RestorePlan::Row& row : rows) is_planned_[row.cell] = true;
  return true;
}

RestorePlan::Tile* StateRestore::tile_at(RestorePlan& plan, const SavedTile& saved,
                                         const std::vector<RestorePlan::Row>& rows) {
  const auto known = tile_by_number_.find(saved.number);
  if (known != tile_by_number_.end()) {
    RestorePlan::Tile& tile = plan.tiles[known->second];
    const auto is_same = [](const RestorePlan::Row& left, const RestorePlan::Row& right) {
      return left.cell == right.cell && left.row == right.row;
    };
    const auto by_row = [](const RestorePlan::Row& left, const RestorePlan::Row& right) {
      return left.row < right.row;
    };
    std::vector<RestorePlan::Row> sorted = rows;
    std::sort(sorted.begin(), sorted.end(), by_row);
    const bool fits = tile.saved == saved && sorted.size() == tile.rows.size() &&
                      std::equal(sorted.begin(), sorted.end(), tile.rows.begin(), is_same);
    return fits ? &tile : nullptr;
  }
  if (!takes_rows(saved, rows)) return nullptr;
  tile_by_number_.emplace(saved.number, plan.tiles.size());
  plan.tiles.push_back({saved, rows, {}, {}});
  std::sort(plan.tiles.back().rows.begin(), plan.tiles.back().rows.end(),
            [](const RestorePlan::Row& left, const RestorePlan::Row& right) { return left.row < right.row; });
  return &plan.tiles.back();
}

namespace {

// Record and history among sections.
RestorePlan::StoreContent content_of(std::uint32_t store, std::span<const Section> sections) {
  RestorePlan::StoreContent content;
  content.store = store;
  for (const Section& section : sections) {
    if (section.kind == SectionKind::kRecord) content.record = section.bytes;
    if (section.kind == SectionKind::kHistory) content.history = section.bytes;
  }
  return content;
}

}  // namespace

void StateRestore::read_payload(std::size_t index, RestorePlan& plan) {
  ArrivingPayload& payload = payloads_[index];
  const std::vector<Section> sections = read_sections(payload.bytes);
  SavedTile saved;
  std::span<const std::uint8_t> place = sections.empty() ? std::span<const std::uint8_t>{} : sections.front().bytes;
  if (sections.empty() || sections.front().kind != SectionKind::kTile || !take_value(place, saved)) return;
  std::vector<RestorePlan::Row> rows;
  for (const ArrivingPayload::Piece& piece : payload.pieces) rows.push_back({piece.cell, piece.fragment.row});
  RestorePlan::Tile* tile = tile_at(plan, saved, rows);
  if (tile == nullptr) return;
  tile->contents.push_back(content_of(payload.store, sections));
  tile->contents.back().payload = index;
  payload.is_used = true;
  for (const Section& section : sections) {
    SidePiece piece;
    std::span<const std::uint8_t> bytes = section.bytes;
    if (section.kind == SectionKind::kSide && take_value(bytes, piece)) side_pieces_.emplace(piece.offset, bytes);
  }
}

void StateRestore::read_layout(const StateLayout& layout, RestorePlan& plan) {
  if (layout.tokens > cells_.size()) return;
  // What came before the tokens of the save is left of a restore that the engine gave up.
  const std::span<const std::uint32_t> cells = std::span(cells_).last(layout.tokens);
  std::map<std::uint32_t, std::vector<RestorePlan::Row>> rows;  // by tile number
  std::size_t count = 0;
  for (const SavedRun& run : layout.runs) {
    count += run.count;
    if (count > cells.size() || std::size_t{run.first_token} + run.count > cells.size()) return;
    for (std::uint32_t at = 0; at < run.count; ++at) {
      rows[run.tile].push_back({cells[run.first_token + at], static_cast<std::uint16_t>(run.first_row + at)});
    }
  }
  for (const SavedTile& saved : layout.tiles) (void)tile_at(plan, saved, rows[saved.number]);
}

void StateRestore::read_side_channel(RestorePlan& plan) {
  side_.clear();
  for (const auto& [offset, bytes] : side_pieces_) {
    if (offset != side_.size()) break;  // what follows a lost piece says nothing
    side_.insert(side_.end(), bytes.begin(), bytes.end());
  }
  for (const Section& section : read_sections(side_)) {
    if (section.kind == SectionKind::kLayout) {
      if (const auto layout = StateLayout::parse(section.bytes)) read_layout(*layout, plan);
      continue;
    }
    std::span<const std::uint8_t> bytes = section.bytes;
    RestorePlan::Tile* tile = numbered_tile(bytes, plan);
    if (tile == nullptr) continue;
    if (section.kind == SectionKind::kFirstTile) {
      tile->contents.push_back(content_of(first_store_, read_sections(bytes)));
    }
    if (section.kind == SectionKind::kSamples) tile->samples.push_back({first_store_, bytes});
  }
}

RestorePlan::Tile* StateRestore::numbered_tile(std::span<const std::uint8_t>& bytes, RestorePlan& plan) const {
  std::uint32_t number = 0;
  if (!take_value(bytes, number)) return nullptr;
  const auto tile = tile_by_number_.find(number);
  return tile == tile_by_number_.end() ? nullptr : &plan.tiles[tile->second];
}

void StateRestore::read_samples(RestorePlan& plan) {
  for (const ArrivingPayload& payload : payloads_) {
    if (!payload.is_used) continue;
    for (const Section& section : read_sections(payload.bytes)) {
      if (section.kind != SectionKind::kSamples) continue;
      std::span<const std::uint8_t> bytes = section.bytes;
      RestorePlan::Tile* tile = numbered_tile(bytes, plan);
      if (tile != nullptr) tile->samples.push_back({payload.store, bytes});
    }
  }
}

RestorePlan StateRestore::plan() {
  RestorePlan plan;
  tile_by_number_.clear();
  for (std::size_t index = 0; index < payloads_.size(); ++index) {
    if (!payloads_[index].bytes.empty()) read_payload(index, plan);
  }
  read_side_channel(plan);
  read_samples(plan);
  std::sort(plan.tiles.begin(), plan.tiles.end(), [](const RestorePlan::Tile& left, const RestorePlan::Tile& right) {
    return left.saved.number < right.saved.number;
  });
  return plan;
}

}  // namespace kvarn
