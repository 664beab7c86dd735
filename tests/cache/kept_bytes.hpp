// Compares what two caches hold of a sequence, byte for byte.
#pragma once

#include <cstdint>
#include <vector>

#include "fake_engine.hpp"

namespace kvarn {

// What a cache holds of the tokens of a sequence from a position on, layer by layer: rows that are not sealed, and for
// sealed ones their tile's records and history.
using KeptBytes = std::vector<std::vector<std::uint8_t>>;
// A failed comparison prints no more than where the two differ.
inline void expect_same(const KeptBytes& left, const KeptBytes& right) {
  ASSERT_EQ(left.size(), right.size());
  const auto differs = std::mismatch(left.begin(), left.end(), right.begin());
  EXPECT_TRUE(left == right) << "first in item " << differs.first - left.begin() << " of " << left.size();
}

inline void put_bytes(KeptBytes& kept, const void* data, std::size_t size) {
  const auto* bytes = static_cast<const std::uint8_t*>(data);
  kept.emplace_back(bytes, bytes + size);
}

inline KeptBytes kept_bytes(FakeEngine& engine, int sequence, std::uint32_t from, Side side = Side::kKey) {
  KeptBytes kept;
  std::vector<HalfBits> row(FakeEngine::kRow);
  for (std::uint32_t layer = 0; layer < FakeEngine::kLayers; ++layer) {
    const StoreId store = engine.store(layer, side);
    const std::vector<std::uint32_t> cells = engine.cells_of(sequence);
    for (std::size_t at = from; at < cells.size(); ++at) {
      const auto records = engine.cache().records_at(store, 0, cells[at]);
      const auto history = engine.cache().history_at(store, 0, cells[at]);
      engine.cache().read_row(store, 0, cells[at], row.data());
      put_bytes(kept, row.data(), row.size() * sizeof(HalfBits));
      put_bytes(kept, records.data(), records.size());
      if (history != nullptr) put_bytes(kept, history->bytes().data(), history->bytes().size());
    }
  }
  return kept;
}

inline void append_singly(FakeEngine& engine, int sequence, std::uint32_t count) {
  for (std::uint32_t token = 0; token < count; ++token) {
    ASSERT_TRUE(engine.append(sequence, 1, FakeEngine::Check::kOff));
  }
}

}  // namespace kvarn
