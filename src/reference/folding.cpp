#include "reference/folding.hpp"

#include <algorithm>
#include <array>
#include <cmath>

namespace kvarn::reference {
namespace {

constexpr float kLargestDigit = 127.0f;
constexpr float kSecondDigits = 254.0f;
constexpr float kSmallest = 1e-30f;

// 16 partial sums over every 16th term, then halved four times.
float sum(const std::vector<float>& terms) {
  std::array<float, 16> partial{};
  for (std::size_t i = 0; i < terms.size(); ++i) partial[i % 16] += terms[i];
  for (std::size_t half = 8; half > 0; half /= 2) {
    for (std::size_t i = 0; i < half; ++i) partial[i] += partial[i + half];
  }
  return partial[0];
}

std::vector<std::int8_t> round_to_digits(const std::vector<float>& values, float inverse) {
  std::vector<std::int8_t> digits;
  for (const float value : values) digits.push_back(static_cast<std::int8_t>(std::nearbyint(value * inverse)));
  return digits;
}

}  // namespace

Folded fold(std::span<const float> a, std::span<const float> row_scale, std::span<const float> row_zero,
            std::uint32_t bits) {
  std::vector<float> values, zeros;
  float largest = 0.0f;
  for (std::size_t row = 0; row < a.size(); ++row) {
    values.push_back(a[row] * row_scale[row]);
    zeros.push_back(a[row] * row_zero[row]);
    largest = std::max(largest, std::fabs(values.back()));
  }
  const float bias = sum(zeros);
  const bool vanishes = largest < kSmallest;
  if (vanishes) largest = 1.0f;
  Folded folded;
  folded.unit = largest / kLargestDigit;
  const float inverse = vanishes ? 0.0f : kLargestDigit / largest;
  folded.digits.push_back(round_to_digits(values, inverse));
  std::int64_t total = 0, squares = 0;
  for (const std::int8_t digit : folded.digits[0]) {
    total += digit;
    squares += digit * digit;
  }
  const float top = static_cast<float>((1u << bits) - 1u);
  const float error = sum(values) - static_cast<float>(total) * folded.unit;
  const float left = error * inverse;
  const float spread = static_cast<float>(a.size()) / 12.0f;
  folded.bias = bias + error * (top * 0.5f);
  if (vanishes || left * left * 0.25f + spread <= static_cast<float>(squares) * (0.1f / (top * top))) return folded;

  const float step = folded.unit / kSecondDigits;
  std::vector<float> rest;
  for (std::size_t row = 0; row < a.size(); ++row) rest.push_back(values[row] - folded.digits[0][row] * folded.unit);
  folded.digits.push_back(round_to_digits(rest, 1.0f / step));
  for (std::size_t row = 0; row < a.size(); ++row) rest[row] -= folded.digits[1][row] * step;
  folded.bias = bias + sum(rest) * (top * 0.5f);
  return folded;
}

std::int64_t dot(std::span<const std::int8_t> digits, std::span<const std::uint8_t> codes) {
  std::int64_t total = 0;
  for (std::size_t row = 0; row < digits.size(); ++row) total += std::int64_t{digits[row]} * codes[row];
  return total;
}

}  // namespace kvarn::reference
