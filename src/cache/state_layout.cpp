#include "cache/state_layout.hpp"

#include "cache/state_sections.hpp"

namespace kvarn {

void StateLayout::add_row(std::uint32_t token, std::uint32_t tile, std::uint16_t row) {
  if (!runs.empty()) {
    SavedRun& last = runs.back();
    if (last.tile == tile && last.first_token + last.count == token && last.first_row + last.count == row) {
      ++last.count;
      return;
    }
  }
  runs.push_back({token, tile, row, 1});
}

std::vector<std::uint8_t> StateLayout::bytes() const {
  std::vector<std::uint8_t> out;
  put_value(out, tokens);
  put_value(out, static_cast<std::uint32_t>(tiles.size()));
  for (const SavedTile& tile : tiles) put_value(out, tile);
  for (const SavedRun& run : runs) put_value(out, run);
  return out;
}

std::optional<StateLayout> StateLayout::parse(std::span<const std::uint8_t> bytes) {
  StateLayout layout;
  std::uint32_t count = 0;
  if (!take_value(bytes, layout.tokens) || !take_value(bytes, count) || count > bytes.size() / sizeof(SavedTile))
    return std::nullopt;
  layout.tiles.resize(count);
  for (SavedTile& tile : layout.tiles) take_value(bytes, tile);
  if (bytes.size() % sizeof(SavedRun) != 0) return std::nullopt;
  layout.runs.resize(bytes.size() / sizeof(SavedRun));
  for (SavedRun& run : layout.runs) take_value(bytes, run);
  return layout;
}

}  // namespace kvarn
