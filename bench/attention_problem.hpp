// One layer's attention as every contestant of the benchmark gets it: random queries, keys, values and a causal mask.
// Knows nothing of tiles, engines or clocks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/half.hpp"

namespace kvarn::bench {

struct HeadShape {
  std::uint32_t heads;  // multiple of kv_heads
  std::uint32_t kv_heads;
  std::uint32_t dim;  // of K and of V; multiple of 16
};

// `keys` counts every row there is, those of the queries themselves included: query q of Q sees the first
// keys - Q + q + 1 of them. 1 query is decode, 2 to 8 are verify, 64 and more are a micro-batch of a prompt.
struct ProblemSize {
  HeadShape shape;
  std::uint32_t keys;
  std::uint32_t queries;
};

class AttentionProblem {
 public:
  // Standard normal values, K and V rounded to half precision; the same for equal sizes.
  explicit AttentionProblem(const ProblemSize& size);

  const ProblemSize& size() const { return size_; }
  float scale() const;
  std::size_t row_values() const { return std::size_t{size_.shape.kv_heads} * size_.shape.dim; }
  std::span<const HalfBits> k() const { return k_; }        // [keys, kv_heads, dim]
  std::span<const HalfBits> v() const { return v_; }        // [keys, kv_heads, dim]
  std::span<const float> q() const { return q_; }           // [queries, heads, dim]
  std::span<const HalfBits> mask() const { return mask_; }  // [queries, keys]
  std::size_t out_values() const { return q_.size(); }      // [queries, heads, dim]

  std::uint32_t seen_keys(std::uint32_t query) const { return size_.keys - size_.queries + query + 1; }
  // Multiplications of queries with keys and of weights with values.
  double multiplications() const;

 private:
  ProblemSize size_;
  std::vector<HalfBits> k_;
  std::vector<HalfBits> v_;
  std::vector<float> q_;
  std::vector<HalfBits> mask_;
};

// Sum of squared differences over the sum of squares of `expected`.
double normalized_error(std::span<const float> values, std::span<const float> expected);

}  // namespace kvarn::bench
