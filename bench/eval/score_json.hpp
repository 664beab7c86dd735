// Scores of positions as they are stored: one array a figure, seven digits (more than single precision logits carry).
#pragma once

#include <span>

#include "kl_divergence.hpp"
#include "results_file.hpp"

namespace kvarn::bench {

double rounded(double value);

// {kld, reference_loss, loss, same_top}, each with one entry a position.
Json scores_json(std::span<const PositionScore> scores);

}  // namespace kvarn::bench
