#include "cache/state_restore.hpp"

#include <algorithm>
#include <cstring>

namespace kvarn {

std::optional<PartialRecord> StateRestore::add(std::uint32_t store, std::uint32_t stream, std::uint32_t cell,
                                               const StateFragment& fragment) {
  auto at = std::find_if(partial_.rbegin(), partial_.rend(), [&](const PartialRecord& known) {
    return known.store == store && known.stream == stream && known.hash == fragment.records_hash &&
           known.seen.size() == fragment.fragments && known.records.size() == fragment.records_bytes;
  });
  if (at == partial_.rend()) {
    if (partial_.size() == kMaxPartial) partial_.pop_front();
    PartialRecord fresh;
    fresh.store = store;
    fresh.stream = stream;
    fresh.hash = fragment.records_hash;
    fresh.missing = fragment.fragments;
    fresh.records.resize(fragment.records_bytes);
    fresh.seen.resize(fragment.fragments);
    fresh.cells.resize(fragment.fragments);
    fresh.rows.resize(fragment.fragments);
    partial_.push_back(std::move(fresh));
    at = partial_.rbegin();
  }
  PartialRecord& partial = *at;
  const std::size_t first = std::size_t{share_bytes(fragment.records_bytes, fragment.fragments)} * fragment.index;
  std::memcpy(partial.records.data() + first, fragment.share.data(), fragment.share.size());
  partial.cells[fragment.index] = cell;
  partial.rows[fragment.index] = fragment.row;
  if (!partial.seen[fragment.index]) --partial.missing;
  partial.seen[fragment.index] = true;
  if (partial.missing != 0) return std::nullopt;
  PartialRecord complete = std::move(partial);
  partial_.erase(std::next(at).base());
  if (hash_bytes(complete.records, 0) != complete.hash) return std::nullopt;
  return complete;
}

}  // namespace kvarn
