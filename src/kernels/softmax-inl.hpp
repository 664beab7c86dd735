// Online softmax over rows of scores, and the join of partial results by log-sum-exp.
#pragma once

#include "kernels/kernel_table.hpp"
#include "simd/vector.hpp"

namespace kvarn {
namespace {

// exp(x) for x <= 0, relative error below 3e-7; 0 below -86, so that no subnormal number arises. x = n ln2 + r with
// |r| <= ln2/2; exp(r) = 1 + r + r^2 P(r), P fitted for the least relative error (3.6e-9).
KVARN_INLINE F32 exp_nonpositive(F32 x) {
  constexpr float kRounder = 0x1.8p23f;
  const I32 vanishes = x < -86.0f;
  const F32 bounded = select(vanishes, splat(-86.0f), x);
  const F32 shifted = bounded * 1.44269504f + kRounder;
  const F32 n = shifted - kRounder;
  const F32 r = (bounded - n * 0x1.63p-1f) - n * -2.12194440e-4f;  // ln2 in two parts; n times the first is exact
  F32 p = r * 1.38116601e-3f + 8.37013502e-3f;
  p = p * r + 4.16685283e-2f;
  p = p * r + 1.66665087e-1f;
  p = p * r + 4.99999926e-1f;
  const F32 y = (p * (r * r) + r) + 1.0f;
  const U32 scaled = bits_of(y) + (bits_of(shifted) << 23);  // the low bits of shifted are n
  return select(vanishes, F32{}, float_of(scaled));
}

KVARN_INLINE float exp_nonpositive(float x) { return exp_nonpositive(splat(x))[0]; }

KVARN_INLINE F32 tanh(F32 x) {
  const F32 magnitude = max(x, -x);
  const F32 e = exp_nonpositive(magnitude * -2.0f);
  const F32 result = (1.0f - e) / (1.0f + e);
  return select(x < 0.0f, -result, result);
}

// Applies cap and mask; the largest score.
KVARN_INLINE float finish_scores(const ScoreRow& row) {
  const F32 hidden = splat(-__builtin_inff());
  F32 largest = hidden;
  for (std::size_t i = 0; i < row.count; i += kWidth) {
    F32 score = load(row.scores + i);
    if (row.soft_cap > 0.0f) score = tanh(score / row.soft_cap) * row.soft_cap;
    if (row.mask != nullptr) {
      const F32 mask = load(row.mask + i);
      score = select(mask == hidden, hidden, score + mask * row.slope);
    }
    store(score, row.scores + i);
    largest = max(score, largest);
  }
  return largest_lane(largest);
}

float softmax_step(const ScoreRow& row, SoftmaxState* state) {
  const float best = finish_scores(row);
  const float hidden = -__builtin_inff();
  if (best == hidden) {
    for (std::size_t i = 0; i < row.count; ++i) row.scores[i] = 0.0f;
    return 1.0f;
  }
  const float top = best > state->max ? best : state->max;
  F32 partial[kPartialVectors] = {};
  for (std::size_t i = 0; i < row.count; i += kPartials) {
    unroll<kPartialVectors>([&](auto v) {
      float* score = row.scores + i + v.value * kWidth;
      const F32 weight = exp_nonpositive(load(score) - splat(top));
      store(weight, score);
      partial[v.value] += weight;
    });
  }
  const float keep = state->max == top ? 1.0f : exp_nonpositive(state->max - top);
  state->sum = state->sum * keep + sum_partials(partial);
  state->max = top;
  return keep;
}

void merge_states(const SoftmaxState& part, const float* part_values, std::size_t dim, SoftmaxState* total,
                  float* total_values) {
  const float hidden = -__builtin_inff();
  if (part.max == hidden) return;
  const float top = part.max > total->max ? part.max : total->max;
  const float keep = exp_nonpositive(total->max - top);
  const float add = exp_nonpositive(part.max - top);
  total->max = top;
  total->sum = total->sum * keep + part.sum * add;
  for (std::size_t i = 0; i < dim; i += kWidth) {
    store(load(total_values + i) * splat(keep) + load(part_values + i) * splat(add), total_values + i);
  }
}

void finish_state(const SoftmaxState& state, const float* sink, const float* values, std::size_t dim, float* out) {
  float factor = 1.0f;
  float sum = state.sum;
  if (state.max == -__builtin_inff()) {
    factor = 0.0f;
    sum = 1.0f;
  } else if (sink != nullptr) {
    const float top = *sink > state.max ? *sink : state.max;
    factor = exp_nonpositive(state.max - top);
    sum = state.sum * factor + exp_nonpositive(*sink - top);
  }
  for (std::size_t i = 0; i < dim; i += kWidth) store(load(values + i) * splat(factor) / splat(sum), out + i);
}

}  // namespace
}  // namespace kvarn
