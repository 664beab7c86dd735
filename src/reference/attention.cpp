// Two passes per query and head: all scores, then the weighted sum.
#include "reference/attention.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

namespace kvarn::reference {
namespace {

constexpr double kHidden = -std::numeric_limits<double>::infinity();

double score(const DenseAttention& problem, std::uint32_t query, std::uint32_t head, std::uint32_t key) {
  const double mask = problem.mask == nullptr ? 0.0 : problem.mask[std::size_t{query} * problem.keys + key];
  if (mask == kHidden) return kHidden;
  const std::uint32_t kv_head = head / (problem.heads / problem.kv_heads);
  const float* q = problem.q + (std::size_t{query} * problem.heads + head) * problem.dim_k;
  const float* k = problem.k + (std::size_t{key} * problem.kv_heads + kv_head) * problem.dim_k;
  double product = 0.0;
  for (std::uint32_t channel = 0; channel < problem.dim_k; ++channel) {
    product += static_cast<double>(q[channel]) * static_cast<double>(k[channel]);
  }
  double logit = problem.scale * product;
  if (problem.soft_cap > 0.0) logit = problem.soft_cap * std::tanh(logit / problem.soft_cap);
  return logit + alibi_slope(head, problem.heads, problem.max_bias) * mask;
}

void attend_one(const DenseAttention& problem, std::uint32_t query, std::uint32_t head, double* out) {
  std::fill(out, out + problem.dim_v, 0.0);
  std::vector<double> scores(problem.keys);
  double top = kHidden;
  for (std::uint32_t key = 0; key < problem.keys; ++key) {
    scores[key] = score(problem, query, head, key);
    top = std::max(top, scores[key]);
  }
  if (top == kHidden) return;
  double total = 0.0;
  if (problem.sinks != nullptr) {
    top = std::max(top, static_cast<double>(problem.sinks[head]));
    total = std::exp(problem.sinks[head] - top);
  }
  const std::uint32_t kv_head = head / (problem.heads / problem.kv_heads);
  for (std::uint32_t key = 0; key < problem.keys; ++key) {
    if (scores[key] == kHidden) continue;
    const double weight = std::exp(scores[key] - top);
    const float* v = problem.v + (std::size_t{key} * problem.kv_heads + kv_head) * problem.dim_v;
    total += weight;
    for (std::uint32_t channel = 0; channel < problem.dim_v; ++channel) out[channel] += weight * v[channel];
  }
  for (std::uint32_t channel = 0; channel < problem.dim_v; ++channel) out[channel] /= total;
}

}  // namespace

double alibi_slope(std::uint32_t head, std::uint32_t heads, double max_bias) {
  if (max_bias <= 0.0) return 1.0;
  const std::uint32_t power = std::bit_floor(heads);
  if (head < power) return std::exp2(-max_bias / power * (head + 1));
  return std::exp2(-max_bias / 2.0 / power * (2 * (head - power) + 1));
}

void attend(const DenseAttention& problem, double* out) {
  for (std::uint32_t query = 0; query < problem.queries; ++query) {
    for (std::uint32_t head = 0; head < problem.heads; ++head) {
      attend_one(problem, query, head, out + (std::size_t{query} * problem.heads + head) * problem.dim_v);
    }
  }
}

}  // namespace kvarn::reference
