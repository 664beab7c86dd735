// What is in a session, added up: for people and for reports.
#pragma once

#include <string>
#include <vector>

#include "session/session.hpp"

namespace kvarn {

// One side of one layer.
struct StoreSummary {
  StoreShape shape;
  std::uint32_t sealed_tiles = 0;
  std::uint32_t exact_tiles = 0;
  std::uint64_t record_bytes = 0;
  std::uint64_t row_bytes = 0;    // exact rows
  std::uint64_t query_bytes = 0;  // histories and samples
  std::uint64_t bytes() const { return record_bytes + row_bytes + query_bytes; }
};

struct PartSummary {
  CacheConfig config;
  std::uint64_t tokens = 0;
  std::uint64_t tiles = 0;
  std::uint64_t description_bytes = 0;  // of tiles: heads, tokens and positions, and the room behind everything
  std::vector<StoreSummary> stores;
  std::uint64_t bytes() const;
  std::uint64_t values() const;  // of all rows
};

struct SessionSummary {
  std::uint64_t commit = 0;
  std::uint64_t file_bytes = 0;
  std::uint64_t live_bytes = 0;
  std::uint64_t index_bytes = 0;
  std::uint64_t unfinished_bytes = 0;  // of a save that broke off, at the end of the file
  std::vector<PartSummary> parts;
  double bits_per_value() const;  // of everything that is live
};

// Reads the descriptions of all tiles, none of their contents. kDamagedTile.
SessionResult<SessionSummary> summarize(const Session& session);

// What a configuration is called: "f16" or "k4v2".
std::string preset_name(const CacheConfig& config);

}  // namespace kvarn
