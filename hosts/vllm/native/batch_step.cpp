#include "batch_step.hpp"

#include <algorithm>
#include <stdexcept>

namespace kvarn_vllm {
namespace {

template <class Value>
std::vector<Value> copy(std::span<const Value> values) {
  return {values.begin(), values.end()};
}

void require(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}

std::vector<Seal> list_seals(std::span<const std::int32_t> blocks, std::span<const std::int32_t> units) {
  require(units.size() == blocks.size() * kTileUnits, "every block to be sealed has its units");
  std::vector<Seal> seals(blocks.size());
  for (std::size_t at = 0; at < blocks.size(); ++at) {
    seals[at].block = blocks[at];
    std::copy_n(units.data() + at * kTileUnits, kTileUnits, seals[at].units);
  }
  return seals;
}

}  // namespace

BatchStep::BatchStep(const StepArrays& arrays, std::size_t units, std::size_t blocks, bool deterministic)
    : early_(list_seals(arrays.early_blocks, arrays.early_units)),
      seals_(list_seals(arrays.seal_blocks, arrays.seal_units)),
      token_unit_(copy(arrays.token_unit)),
      token_row_(copy(arrays.token_row)),
      block_units_(copy(arrays.block_units)),
      is_exact_(copy(arrays.is_exact)),
      query_start_(copy(arrays.query_start)),
      seq_lens_(copy(arrays.seq_lens)),
      block_table_(copy(arrays.block_table)),
      table_width_(arrays.table_width),
      blocks_(blocks),
      deterministic_(deterministic) {
  check_units(token_unit_, units);
  check_units(block_units_, units);
  for (const std::vector<Seal>* list : {&early_, &seals_}) {
    for (const Seal& seal : *list) {
      check_units(seal.units, units);
      require(seal.block >= 0 && static_cast<std::size_t>(seal.block) < blocks_, "no such page");
      require(*std::min_element(seal.units, seal.units + kTileUnits) != kNoUnit,
              "a block to be sealed has all its rows");
    }
  }
  require(token_row_.size() == token_unit_.size(), "every token has a row");
  for (const std::int32_t row : token_row_) {
    require(row >= 0 && row < static_cast<std::int32_t>(kUnitTokens), "no such row of a unit");
  }
  require(block_units_.size() == is_exact_.size() * kTileUnits, "every block has its units");
  check_rows();
}

void BatchStep::check_units(std::span<const std::int32_t> units, std::size_t count) const {
  for (const std::int32_t unit : units) {
    require(unit >= kNoUnit && unit < static_cast<std::int64_t>(count), "no such unit");
  }
}

void BatchStep::check_rows() const {
  const std::size_t rows = seq_lens_.size();
  require(query_start_.size() == rows + 1 && query_start_[0] == 0, "rows of the batch follow each other");
  require(block_table_.size() == rows * table_width_, "every row has its blocks");
  require(static_cast<std::size_t>(query_start_[rows]) <= token_unit_.size(), "every token of a row is there");
  for (std::size_t row = 0; row < rows; ++row) {
    const std::int32_t count = query_start_[row + 1] - query_start_[row];
    require(count >= 0 && (count == 0 || count <= seq_lens_[row]), "a row has no more queries than tokens");
    require(count == 0 || static_cast<std::size_t>(seq_lens_[row]) <= table_width_ * kTileTokens,
            "a row has all its blocks");
  }
  for (const std::int32_t block : block_table_) {
    require(block >= 0, "no such block");
  }
}

const StepParts& BatchStep::parts(std::uint32_t window) {
  const auto found = parts_.find(window);
  return found != parts_.end() ? found->second : parts_.emplace(window, make_parts(window)).first->second;
}

StepParts BatchStep::make_parts(std::uint32_t window) const {
  StepParts parts;
  for (std::size_t row = 0; row < seq_lens_.size(); ++row) {
    std::size_t token = static_cast<std::size_t>(query_start_[row]);
    const auto end_token = static_cast<std::size_t>(query_start_[row + 1]);
    const auto length = static_cast<std::uint32_t>(seq_lens_[row]);
    while (token < end_token) {
      const auto left = static_cast<std::uint32_t>(end_token - token);
      const std::uint32_t rank = length - left;
      const std::uint32_t queries = deterministic_ ? std::min(left, kTileTokens - rank % kTileTokens) : left;
      add_part(row, {rank, queries, window, kTileTokens}, token, parts);
      token += queries;
    }
  }
  return parts;
}

void BatchStep::add_part(std::size_t row, const kvarn::CausalRange& range, std::size_t first_token,
                         StepParts& parts) const {
  parts.parts.push_back({kvarn::CausalPart(range), first_token, parts.sources.size()});
  for (std::uint32_t tile = range.first_tile(); tile < range.end_tile(); ++tile) {
    parts.sources.push_back(source(row, tile, range));
  }
}

TileSource BatchStep::source(std::size_t row, std::uint32_t tile, const kvarn::CausalRange& range) const {
  const std::int32_t block = block_table_[row * table_width_ + tile];
  const auto at = static_cast<std::size_t>(block);
  const bool has_rows = at < is_exact_.size() && is_exact_[at] != 0;
  const bool is_own = tile + 1 == range.end_tile();
  TileSource source{block, has_rows && (is_own || !deterministic_), {}};
  std::fill_n(source.units, kTileUnits, kNoUnit);
  if (source.is_exact) {
    std::copy_n(block_units_.data() + at * kTileUnits, kTileUnits, source.units);
    const std::uint32_t used = std::min(range.total() - tile * kTileTokens, kTileTokens);
    const std::uint32_t used_units = (used + kUnitTokens - 1) / kUnitTokens;
    require(std::find(source.units, source.units + used_units, kNoUnit) == source.units + used_units,
            "rows of a block are missing");
  } else {
    require(at < blocks_, "no such page");
  }
  return source;
}

}  // namespace kvarn_vllm
