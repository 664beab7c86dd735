// The golden vectors of the tile record: which tiles there are, and the files that hold their rows, records and
// checksums. tests/golden holds the files; the writer makes them, the test makes them again and compares.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "reference/record.hpp"
#include "tile_samples.hpp"

namespace kvarn::testing {

// One golden tile. content names the recipe of its rows: see golden_rows.
struct GoldenTile {
  reference::TileSpec spec;
  reference::Level level;
  std::string content;
};

struct GoldenFile {
  std::string name;
  std::vector<std::uint8_t> bytes;
};

std::vector<GoldenTile> golden_tiles();

// The exact rows of a recipe: even, uneven, small, steps, zeros, mixed_zeros, constant, largest, subnormal, outlier.
ExactRows golden_rows(const std::string& content, std::uint32_t tokens, std::uint32_t dim);

std::string rows_name(const GoldenTile& tile);    // t32_d64_uneven.rows
std::string record_name(const GoldenTile& tile);  // k_t32_d64_b4_scaled_uneven.record

// Every file of the set: rows and records, manifest.txt (one line per record with the SHA-256 of its decoded rows) and
// SHA256SUMS over all the others.
std::vector<GoldenFile> golden_files();

}  // namespace kvarn::testing
