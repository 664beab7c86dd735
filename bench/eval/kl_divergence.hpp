// How far the next-token distribution of one cache is from that of the reference, both given as logits in memory.
// Knows nothing of models, contexts and texts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace kvarn::bench {

// Where no token follows: its losses are zero.
inline constexpr std::int32_t kNoTarget = -1;

// One position of a text.
struct PositionScore {
  double kld = 0.0;             // KL(reference || other) in nats, sums in double precision; never negative
  double reference_loss = 0.0;  // -ln of the probability that the reference gives the token that follows
  double loss = 0.0;            // the same of the other
  bool same_top = false;        // both hold the same token for the likeliest
};

// Rows of logits, [rows, vocabulary], one after the other.
struct LogitRows {
  const float* data;
  std::size_t vocabulary;
  std::span<const float> row(std::size_t index) const { return {data + index * vocabulary, vocabulary}; }
};

// ln of the sum of exp. At least one logit must be finite.
double log_sum_exp(std::span<const float> logits);

// Both rows are equally long; target is an index into them or kNoTarget.
PositionScore compare_logits(std::span<const float> reference, std::span<const float> other, std::int32_t target);

// One score a row; targets and scores are equally long. Rows are shared out among threads; the result does not depend
// on how many.
void compare_rows(const LogitRows& reference, const LogitRows& other, std::span<const std::int32_t> targets,
                  int threads, std::span<PositionScore> scores);

}  // namespace kvarn::bench
