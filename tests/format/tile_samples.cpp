// Powers of two and sums of small integers: no library function whose last bit could differ.
#include "tile_samples.hpp"

#include <cmath>

namespace kvarn::testing {

std::uint64_t Random::next() {
  state_ += 0x9E3779B97F4A7C15u;
  std::uint64_t mixed = state_;
  mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9u;
  mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBu;
  return mixed ^ (mixed >> 31);
}

float Random::near_normal() {
  std::int32_t sum = -6 * 65535;
  for (int i = 0; i < 12; ++i) sum += static_cast<std::int32_t>(below(65536));
  return static_cast<float>(sum) / 65536.0f;
}

std::vector<const HalfBits*> ExactRows::pointers() const {
  std::vector<const HalfBits*> rows;
  for (std::size_t begin = 0; begin < values.size(); begin += dim) rows.push_back(&values[begin]);
  return rows;
}

ExactRows constant_rows(std::uint32_t tokens, std::uint32_t dim, HalfBits value) {
  ExactRows rows(tokens, dim);
  for (HalfBits& half : rows.values) half = value;
  return rows;
}

ExactRows normal_rows(std::uint32_t tokens, std::uint32_t dim, float deviation, std::uint64_t seed) {
  Random random(seed);
  ExactRows rows(tokens, dim);
  for (HalfBits& half : rows.values) half = float_to_half(random.near_normal() * deviation);
  return rows;
}

ExactRows uneven_rows(std::uint32_t tokens, std::uint32_t dim, std::uint32_t spread, std::uint64_t seed) {
  Random random(seed);
  const auto exponent = [&] { return static_cast<int>(random.below(2 * spread + 1)) - static_cast<int>(spread); };
  std::vector<int> channel_exponents;
  for (std::uint32_t channel = 0; channel < dim; ++channel) channel_exponents.push_back(exponent());
  ExactRows rows(tokens, dim);
  for (std::uint32_t token = 0; token < tokens; ++token) {
    const int token_exponent = exponent();
    for (std::uint32_t channel = 0; channel < dim; ++channel) {
      const float value = std::ldexp(random.near_normal(), token_exponent + channel_exponents[channel]);
      rows.at(token, channel) = float_to_half(value);
    }
  }
  return rows;
}

}  // namespace kvarn::testing
