// Online softmax over rows of scores, and the join of partial results by log-sum-exp.
#pragma once

#include "kernels/kernel_table.hpp"
#include "simd/vector.hpp"

namespace kvarn {
namespace {

// exp(x) for x <= 0; 0 below -86, so that no subnormal number arises. x / ln2 = n + r with |r| <= 1/2; 2^r = 1 + r
// P(r), P fitted for the least relative error (9e-8 before rounding). Rounding x / ln2 adds up to |x| * 2^-24. Vectors
// are taken through every step together: one alone would wait for each result.
template <int Count>
KVARN_INLINE void exp_nonpositive(F32 (&x)[Count]) {
  constexpr float kRounder = 0x1.8p23f;
  F32 shifted[Count], r[Count], p[Count];
  unroll<Count>([&](auto i) { r[i.value] = x[i.value] * 0x1.715476p0f; });
  unroll<Count>([&](auto i) { shifted[i.value] = r[i.value] + kRounder; });
  unroll<Count>([&](auto i) { r[i.value] = r[i.value] - (shifted[i.value] - kRounder); });
  unroll<Count>([&](auto i) { p[i.value] = r[i.value] * 0x1.5bba14p-10f + 0x1.3cea88p-7f; });
  unroll<Count>([&](auto i) { p[i.value] = p[i.value] * r[i.value] + 0x1.c6b752p-5f; });
  unroll<Count>([&](auto i) { p[i.value] = p[i.value] * r[i.value] + 0x1.ebf9bcp-3f; });
  unroll<Count>([&](auto i) { p[i.value] = p[i.value] * r[i.value] + 0x1.62e42ap-1f; });
  unroll<Count>([&](auto i) { p[i.value] = p[i.value] * r[i.value] + 1.0f; });
  unroll<Count>([&](auto i) {  // the low bits of shifted are n
    const F32 power = float_of(bits_of(p[i.value]) + (bits_of(shifted[i.value]) << 23));
    x[i.value] = select(x[i.value] < -86.0f, F32{}, power);
  });
}

KVARN_INLINE F32 exp_nonpositive(F32 x) {
  F32 vectors[1] = {x};
  exp_nonpositive(vectors);
  return vectors[0];
}

KVARN_INLINE float exp_nonpositive(float x) { return exp_nonpositive(splat(x))[0]; }

KVARN_INLINE F32 tanh(F32 x) {
  const F32 magnitude = max(x, -x);
  const F32 e = exp_nonpositive(magnitude * -2.0f);
  const F32 result = (1.0f - e) / (1.0f + e);
  return select(x < 0.0f, -result, result);
}

void finish_scores(const ScoreRow& row) {
  const F32 hidden = splat(-__builtin_inff());
  for (std::size_t i = 0; i < row.count; i += kWidth) {
    F32 score = load(row.scores + i);
    if (row.soft_cap > 0.0f) score = tanh(score / row.soft_cap) * row.soft_cap;
    if (row.mask != nullptr) {
      const F32 mask = load(row.mask + i);
      score = select(mask == hidden, hidden, score + mask * row.slope);
    }
    store(score, row.scores + i);
  }
}

// Vectors of scores in flight at once; whole groups of 16 scores.
constexpr int kExpVectors = 4;

template <int Count>
KVARN_INLINE void weigh_scores(float* scores, F32 top, F32 (&sums)[kPartialVectors]) {
  F32 x[Count];
  unroll<Count>([&](auto i) { x[i.value] = load(scores + i.value * kWidth) - top; });
  exp_nonpositive(x);
  unroll<Count>([&](auto i) {
    store(x[i.value], scores + i.value * kWidth);
    sums[i.value % kPartialVectors] += x[i.value];
  });
}

// Up to four rows at once: their reductions share the shuffles, and their latencies overlap.
template <int Count>
void softmax_block(float* scores, std::size_t stride, std::size_t count, SoftmaxState* states) {
  const auto add = [](F32 a, F32 b) { return a + b; };
  const auto larger = [](F32 a, F32 b) { return max(a, b); };
  const F32 hidden = splat(-__builtin_inff());
  F32 partial[4] = {hidden, hidden, hidden, hidden};
  for (std::size_t i = 0; i < count; i += kWidth) {
    unroll<Count>([&](auto k) { partial[k.value] = max(load(scores + k.value * stride + i), partial[k.value]); });
  }
  const F32 tops = halve_four(partial, larger);
  unroll<Count>([&](auto k) {
    float* row = scores + k.value * stride;
    const F32 top = splat(tops[k.value * kFourStep]);
    F32 sums[kPartialVectors] = {};
    if (top[0] == hidden[0]) {
      for (std::size_t i = 0; i < count; i += kWidth) store(F32{}, row + i);
    } else {
      std::size_t i = 0;
      for (; i + kExpVectors * kWidth <= count; i += kExpVectors * kWidth)
        weigh_scores<kExpVectors>(row + i, top, sums);
      for (; i < count; i += kPartials) weigh_scores<kPartialVectors>(row + i, top, sums);
    }
    partial[k.value] = join_vectors(sums, add);
  });
  const F32 sums = halve_four(partial, add);
  unroll<Count>([&](auto k) { states[k.value] = {tops[k.value * kFourStep], sums[k.value * kFourStep]}; });
}

void softmax_rows(float* scores, std::size_t stride, std::size_t rows, std::size_t count, SoftmaxState* states) {
  for (std::size_t row = 0; row < rows; row += 4) {
    with_count<4>(rows - row < 4 ? rows - row : 4, [&](auto taken) {
      softmax_block<decltype(taken)::value>(scores + row * stride, stride, count, states + row);
    });
  }
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
