// Softmax attention over plain rows in double precision: the truth for every attention kernel and for the cache.
// Part of the scalar truth that only tests link; knows nothing of tiles: decode a sealed tile first (decode_rows).
#pragma once

#include <cstdint>

namespace kvarn::reference {

// Keys and values as exact or decoded un-rotated rows. heads is a multiple of kv_heads; head h reads h / (heads /
// kv_heads).
struct DenseAttention {
  std::uint32_t heads = 1;
  std::uint32_t kv_heads = 1;
  std::uint32_t dim_k = 0;
  std::uint32_t dim_v = 0;
  std::uint32_t queries = 0;
  std::uint32_t keys = 0;
  const float* q = nullptr;      // [queries, heads, dim_k]
  const float* k = nullptr;      // [keys, kv_heads, dim_k]
  const float* v = nullptr;      // [keys, kv_heads, dim_v]
  const float* mask = nullptr;   // [queries, keys]: -infinity hides the key; nullptr: all zeros
  const float* sinks = nullptr;  // [heads], one more logit without a value; nullptr: none
  double scale = 1.0;
  double soft_cap = 0.0;  // c > 0: s = c * tanh(s / c)
  double max_bias = 0.0;  // ALiBi when > 0
};

// The factor of the mask for one head: 1 without ALiBi, else the geometric sequence over heads (ALiBi, arXiv
// 2108.12409, with the interleaved second sequence for head counts that are not powers of two).
double alibi_slope(std::uint32_t head, std::uint32_t heads, double max_bias);

// out[queries, heads, dim_v]. Score s = scale * q.k, soft-capped, plus slope * mask. Hidden keys and their values are
// never read. A query that sees no key gets zeros.
void attend(const DenseAttention& problem, double* out);

}  // namespace kvarn::reference
