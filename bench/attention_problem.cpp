#include "attention_problem.hpp"

#include <algorithm>
#include <cmath>
#include <random>

namespace kvarn::bench {
namespace {

constexpr HalfBits kHidden = 0xFC00;  // minus infinity

// Normal values drawn from a table: the rows of a long context are hundreds of millions of values.
class NormalSource {
 public:
  explicit NormalSource(std::uint64_t seed) : state_(seed * 2 + 1), table_(kTableSize) {
    std::mt19937 random(static_cast<std::uint32_t>(seed));
    std::normal_distribution<float> normal;
    for (float& value : table_) value = normal(random);
  }

  // xorshift64 (Marsaglia 2003); the top bits choose.
  float next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return table_[state_ >> (64 - kTableBits)];
  }

 private:
  static constexpr int kTableBits = 16;
  static constexpr std::size_t kTableSize = std::size_t{1} << kTableBits;
  std::uint64_t state_;
  std::vector<float> table_;
};

}  // namespace

AttentionProblem::AttentionProblem(const ProblemSize& size)
    : size_(size),
      k_(size.keys * row_values()),
      v_(size.keys * row_values()),
      q_(std::size_t{size.queries} * size.shape.heads * size.shape.dim),
      mask_(std::size_t{size.queries} * size.keys, kHidden) {
  NormalSource source(1);
  for (HalfBits& value : k_) value = float_to_half(source.next());
  for (HalfBits& value : v_) value = float_to_half(source.next());
  for (float& value : q_) value = source.next();
  for (std::uint32_t query = 0; query < size.queries; ++query) {
    std::fill_n(mask_.begin() + static_cast<std::ptrdiff_t>(std::size_t{query} * size.keys), seen_keys(query), 0);
  }
}

float AttentionProblem::scale() const { return 1.0f / std::sqrt(static_cast<float>(size_.shape.dim)); }

double AttentionProblem::multiplications() const {
  double pairs = 0;
  for (std::uint32_t query = 0; query < size_.queries; ++query) pairs += seen_keys(query);
  return pairs * size_.shape.heads * size_.shape.dim * 2;
}

double normalized_error(std::span<const float> values, std::span<const float> expected) {
  double error = 0;
  double total = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double difference = static_cast<double>(values[i]) - expected[i];
    error += difference * difference;
    total += static_cast<double>(expected[i]) * expected[i];
  }
  return error / total;
}

}  // namespace kvarn::bench
