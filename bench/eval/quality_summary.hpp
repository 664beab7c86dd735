// From stored scores to figures: one chunk's arrays in, means, quantiles, intervals and curves out. Knows JSON and
// numbers only.
#pragma once

#include <cstddef>
#include <span>

#include "results_file.hpp"
#include "statistics.hpp"

namespace kvarn::bench {

// Of all chunks together, positions from first_position on: {positions, mean_kld, mean_kld_low, mean_kld_high,
// median_kld, kld_99, kld_99_9, max_kld, same_top (percent), perplexity, reference_perplexity, perplexity_ratio}.
// Chunks are what a lockstep measurement stores. Empty if no position is left.
Json score_summary(std::span<const Json> chunks, std::size_t first_position, const Bootstrap& bootstrap);

// The same positions of two caches: {mean_kld, median_kld, kld_99_9} of the first over the second, each with its
// interval in {..._low, ..._high}. Empty if no position is left.
Json score_ratios(std::span<const Json> chunks, std::span<const Json> other, std::size_t first_position,
                  const Bootstrap& bootstrap);

// Mean KLD over ranges of positions: [{first, last, mean_kld}], `last` not included. Empty ranges are left out.
Json kld_by_position(std::span<const Json> chunks, std::size_t range_tokens);

// The same of a free run, where an entry is a token: [{first, last, mean_kld, same_top (percent)}].
Json drift(const Json& free_run, std::size_t range_tokens);

// Bits that one cached value takes at the end of a chunk, exact tokens, metadata and unused memory included.
double full_bits_per_value(const Json& account);

// Share of the values that are in sealed tiles, from the bytes of their records.
double sealed_share(const Json& account, double nominal_bits);

}  // namespace kvarn::bench
