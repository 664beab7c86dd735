// Section 3 of the algorithm, one row at a time.
#include "reference/rounding.hpp"

#include <algorithm>
#include <cmath>

namespace kvarn::reference {

RoundedTile round_rows(const FloatTile& tile, std::uint32_t bits) {
  const float top = static_cast<float>((1u << bits) - 1u);
  RoundedTile rounded;
  for (std::uint32_t row = 0; row < tile.rows; ++row) {
    const float* values = &tile.values[std::size_t{row} * tile.lanes];
    const auto [min, max] = std::minmax_element(values, values + tile.lanes);
    const float lo = *min + 0.0f;  // a minimum of zero counts as +0, whichever sign was met first
    const float scale = std::max((*max - lo) / top, 1e-10f);
    for (std::uint32_t lane = 0; lane < tile.lanes; ++lane) {
      const float nearest = std::nearbyint((values[lane] - lo) / scale);  // default mode: half to even
      rounded.codes.push_back(static_cast<std::uint8_t>(std::clamp(nearest, 0.0f, top)));
    }
    rounded.scale.push_back(scale);
    rounded.zero.push_back(lo);
  }
  return rounded;
}

}  // namespace kvarn::reference
