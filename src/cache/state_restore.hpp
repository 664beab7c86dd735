// Puts records together again from the fragments that restored rows carry (state_fragment.hpp).
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "cache/state_fragment.hpp"

namespace kvarn {

// A record of which some fragments have arrived.
struct PartialRecord {
  std::uint32_t store = 0;
  std::uint32_t stream = 0;
  std::uint64_t hash = 0;
  std::uint32_t missing = 0;
  std::vector<std::uint8_t> records;
  std::vector<bool> seen;            // by fragment
  std::vector<std::uint32_t> cells;  // by fragment
  std::vector<std::uint16_t> rows;   // by fragment: row of the tile
};

class StateRestore {
 public:
  // Takes a fragment that was written to a cell; returns the record once it is complete and its hash is right.
  std::optional<PartialRecord> add(std::uint32_t store, std::uint32_t stream, std::uint32_t cell,
                                   const StateFragment& fragment);
  void clear() { partial_.clear(); }

 private:
  static constexpr std::size_t kMaxPartial = 256;  // older ones are forgotten: their rows stay what the bytes say
  std::deque<PartialRecord> partial_;
};

}  // namespace kvarn
