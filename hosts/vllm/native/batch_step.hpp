// One step of the engine as all layers see it: which rows are stored where, which blocks are sealed, and how much each
// query sees of each tile of its sequence. Copied from the caller's arrays and checked once; then every layer reads it.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "attention/causal_part.hpp"
#include "page_format.hpp"

namespace kvarn_vllm {

inline constexpr std::int32_t kNoUnit = -1;

// A block whose record is written in this step.
struct Seal {
  std::int32_t block;
  std::int32_t units[kTileUnits];
};

// The caller's arrays. Sizes are those that the comments say; values are checked by BatchStep.
struct StepArrays {
  std::span<const std::int32_t> early_blocks;  // [early]
  std::span<const std::int32_t> early_units;   // [early, kTileUnits]
  std::span<const std::int32_t> seal_blocks;   // [seals]
  std::span<const std::int32_t> seal_units;    // [seals, kTileUnits]
  std::span<const std::int32_t> token_unit;    // [tokens], kNoUnit: stored nowhere
  std::span<const std::int32_t> token_row;     // [tokens]
  std::span<const std::int32_t> block_units;   // [blocks, kTileUnits]
  std::span<const std::uint8_t> is_exact;      // [blocks]
  std::span<const std::int32_t> query_start;   // [rows + 1]
  std::span<const std::int32_t> seq_lens;      // [rows]
  std::span<const std::int32_t> block_table;   // [rows, table_width]
  std::size_t table_width = 0;
};

// Where one tile of a sequence is read: a page, or units (kNoUnit beyond its rows).
struct TileSource {
  std::int32_t block;
  bool is_exact;
  std::int32_t units[kTileUnits];
};

// Queries of one row of the batch that see the same tiles.
struct StepPart {
  kvarn::CausalPart seen;
  std::size_t first_token;  // in the batch
  std::size_t first_source;
};

// The parts of all rows for one window.
struct StepParts {
  std::vector<StepPart> parts;
  std::vector<TileSource> sources;
};

class BatchStep {
 public:
  // deterministic: a query reads the rows of its own tile alone exactly, all tiles before from their records.
  // units: how many there are, staging area and all; blocks: how many pages. Throws std::invalid_argument.
  BatchStep(const StepArrays& arrays, std::size_t units, std::size_t blocks, bool deterministic);

  std::size_t tokens() const { return token_unit_.size(); }
  std::int32_t token_unit(std::size_t token) const { return token_unit_[token]; }
  std::uint32_t token_row(std::size_t token) const { return static_cast<std::uint32_t>(token_row_[token]); }
  std::span<const Seal> early() const { return early_; }
  std::span<const Seal> seals() const { return seals_; }

  // Made when the first layer with this window asks.
  const StepParts& parts(std::uint32_t window);

 private:
  void check_units(std::span<const std::int32_t> units, std::size_t count) const;
  void check_rows() const;
  StepParts make_parts(std::uint32_t window) const;
  void add_part(std::size_t row, const kvarn::CausalRange& range, std::size_t first_token, StepParts& parts) const;
  TileSource source(std::size_t row, std::uint32_t tile, const kvarn::CausalRange& range) const;

  std::vector<Seal> early_;
  std::vector<Seal> seals_;
  std::vector<std::int32_t> token_unit_;
  std::vector<std::int32_t> token_row_;
  std::vector<std::int32_t> block_units_;
  std::vector<std::uint8_t> is_exact_;
  std::vector<std::int32_t> query_start_;
  std::vector<std::int32_t> seq_lens_;
  std::vector<std::int32_t> block_table_;
  std::size_t table_width_;
  std::size_t blocks_;
  bool deterministic_;
  std::map<std::uint32_t, StepParts> parts_;
};

}  // namespace kvarn_vllm
