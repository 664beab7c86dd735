#include "kl_divergence.hpp"

#include <algorithm>
#include <cmath>
#include <thread>
#include <vector>

namespace kvarn::bench {
namespace {

// Below this a probability adds nothing to a sum of doubles that are of the order of one.
constexpr float kNegligibleLog = -40.0F;

std::size_t top(std::span<const float> logits) {
  return std::max_element(logits.begin(), logits.end()) - logits.begin();
}

double loss_of(std::span<const float> logits, double log_sum, std::int32_t target) {
  return target == kNoTarget ? 0.0 : log_sum - logits[target];
}

}  // namespace

double log_sum_exp(std::span<const float> logits) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (const float logit : logits) {
    const float distance = logit - largest;
    if (distance > kNegligibleLog) sum += std::exp(distance);
  }
  return largest + std::log(sum);
}

PositionScore compare_logits(std::span<const float> reference, std::span<const float> other, std::int32_t target) {
  const double reference_sum = log_sum_exp(reference);
  const double other_sum = log_sum_exp(other);
  double divergence = 0.0;
  for (std::size_t token = 0; token < reference.size(); ++token) {
    const auto log_probability = static_cast<float>(reference[token] - reference_sum);
    if (log_probability <= kNegligibleLog) continue;
    const double difference = (reference[token] - reference_sum) - (other[token] - other_sum);
    divergence += std::exp(log_probability) * difference;
  }
  return {.kld = std::max(divergence, 0.0),
          .reference_loss = loss_of(reference, reference_sum, target),
          .loss = loss_of(other, other_sum, target),
          .same_top = top(reference) == top(other)};
}

void compare_rows(const LogitRows& reference, const LogitRows& other, std::span<const std::int32_t> targets,
                  int threads, std::span<PositionScore> scores) {
  const std::size_t workers = std::clamp<std::size_t>(threads, 1, std::max<std::size_t>(1, targets.size()));
  const auto compare_every = [&](std::size_t first) {
    for (std::size_t row = first; row < targets.size(); row += workers) {
      scores[row] = compare_logits(reference.row(row), other.row(row), targets[row]);
    }
  };
  std::vector<std::thread> others;
  for (std::size_t worker = 1; worker < workers; ++worker) others.emplace_back(compare_every, worker);
  compare_every(0);
  for (std::thread& thread : others) thread.join();
}

}  // namespace kvarn::bench
