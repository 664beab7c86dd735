#include "attention/causal_part.hpp"

#include <algorithm>

namespace kvarn {
namespace {

constexpr HalfBits kHidden = 0xFC00;  // minus infinity

// What the query of this rank sees of the rows of these ranks, [first, end).
Visibility visibility(std::uint32_t rank, std::uint32_t window, std::uint32_t first, std::uint32_t end) {
  const std::uint32_t oldest = oldest_seen(rank, window);
  if (first > rank || end <= oldest) return Visibility::kNone;
  return end - 1 <= rank && first >= oldest ? Visibility::kAll : Visibility::kSome;
}

}  // namespace

// Query q sees a row `d` tokens before it if 0 <= d < window. So one line of mask values serves all: with the columns
// numbered from the newest row backwards, query q reads it from its own offset q on.
CausalPart::CausalPart(const CausalRange& range) : range_(range) {
  const std::uint32_t queries = range.queries;
  const std::uint64_t seen = range.window == 0 ? 0 : std::min(range.window, range.total());
  reach_ = std::min<std::uint64_t>(queries + seen, range.total()) + range.tile_tokens;
  mask_.assign(queries + reach_, kHidden);
  const std::uint64_t end =
      range.window == 0 ? mask_.size() : std::min<std::uint64_t>(queries - 1 + seen, mask_.size());
  std::fill(mask_.begin() + (queries - 1), mask_.begin() + static_cast<std::ptrdiff_t>(end), HalfBits{0});
  columns_.resize(reach_ + 1);
  for (std::uint64_t at = 0; at <= reach_; ++at) columns_[at] = static_cast<std::uint32_t>(reach_ - at);
  seen_.reserve(std::size_t{queries} * tile_count());
  for (std::uint32_t rank = range.first_rank; rank < range.total(); ++rank) {
    for (std::uint32_t tile = range.first_tile(); tile < range.end_tile(); ++tile) {
      const std::uint32_t first = tile * range.tile_tokens;
      seen_.push_back(visibility(rank, range.window, first, std::min(range.total(), first + range.tile_tokens)));
    }
  }
}

// The columns of the rows of the tile whose first token has this rank. Tiles too old to be seen in part have none that
// mean anything.
const std::uint32_t* CausalPart::columns_of(std::uint32_t first_rank) const {
  const std::uint64_t back = range_.total() - 1 - first_rank;  // from the newest row
  return columns_.data() + (back > reach_ ? 0 : reach_ - back);
}

AttentionJob CausalPart::job(std::span<TileView> views) const {
  for (std::uint32_t at = 0; at < views.size(); ++at) {
    const std::uint32_t first = (range_.first_tile() + at) * range_.tile_tokens;
    views[at].used_rows = std::min(range_.total() - first, range_.tile_tokens);
    views[at].cells = columns_of(first);
    views[at].has_gaps = false;
  }
  AttentionJob job;
  job.tiles = views;
  job.queries = range_.queries;
  job.visibility = seen_.data();
  job.mask = mask_.data();
  job.mask_stride = 1;
  job.mask_columns = static_cast<std::uint32_t>(reach_ + 1);
  return job;
}

}  // namespace kvarn
