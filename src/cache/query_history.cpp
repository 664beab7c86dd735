#include "cache/query_history.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

namespace kvarn {
namespace {

constexpr float kTopCode = 127.0f;
// The largest value of an array lies in [2^kTopExponent, 2^(kTopExponent+1)): far below what half precision holds, and
// values 2^28 times smaller still keep all their bits.
constexpr int kTopExponent = 14;
constexpr int kMaxExponent = 111;  // of either sign: any half times 2^kMaxExponent is a finite float

bool fits_half(const float* values, std::uint32_t count) {
  bool fits = true;
  for (std::uint32_t at = 0; at < count; ++at) fits &= std::fabs(values[at]) <= kHalfMax;
  return fits;
}

float largest_magnitude(const float* values, std::uint32_t count) {
  float largest = 0.0f;
  for (std::uint32_t at = 0; at < count; ++at) largest = std::max(largest, std::fabs(values[at]));
  return largest;
}

void pack_array(const float* values, std::uint32_t count, std::uint16_t* words) {
  const float largest = largest_magnitude(values, count);
  const int wanted = largest == 0.0f ? 0 : std::ilogb(largest) - kTopExponent;
  const int exponent = std::clamp(wanted, -kMaxExponent, kMaxExponent);
  const float inverse_unit = std::ldexp(1.0f, -exponent);
  words[0] = static_cast<std::uint16_t>(static_cast<std::int16_t>(exponent));
  for (std::uint32_t at = 0; at < count; ++at) words[1 + at] = float_to_half(values[at] * inverse_unit);
}

int exponent_of(std::uint16_t word) { return static_cast<std::int16_t>(word); }

bool valid_array(const std::uint16_t* words, std::uint32_t count, bool may_be_negative) {
  bool valid = std::abs(exponent_of(words[0])) <= kMaxExponent;
  for (std::uint32_t at = 1; at <= count; ++at) {
    valid &= (words[at] & 0x7FFFu) < 0x7C00u && (may_be_negative || (words[at] & 0x8000u) == 0);
  }
  return valid;
}

}  // namespace

QuerySamples::QuerySamples(const QueryShape& shape)
    : shape_(shape),
      codes_(std::size_t{shape.samples()} * shape.heads() * shape.dim),
      units_(std::size_t{shape.samples()} * shape.heads()) {}

void QuerySamples::keep(std::uint32_t sample, const float* q, std::size_t head_stride) {
  forget(sample);
  for (std::uint32_t head = 0; head < shape_.heads(); ++head) {
    const float* values = q + head * head_stride;
    if (!fits_half(values, shape_.dim)) return;
    const std::size_t at = std::size_t{sample} * shape_.heads() + head;
    units_[at] = float_to_half(largest_magnitude(values, shape_.dim) / kTopCode);
    const float unit = half_to_float(units_[at]);
    for (std::uint32_t channel = 0; channel < shape_.dim; ++channel) {
      const float code = unit == 0.0f ? 0.0f : std::nearbyint(values[channel] / unit);
      codes_[at * shape_.dim + channel] = static_cast<std::int8_t>(std::clamp(code, -kTopCode, kTopCode));
    }
  }
  present_ |= std::uint64_t{1} << sample;
}

void QuerySamples::add_moments(std::uint32_t kv_head, float* moments) const {
  const std::uint32_t dim = shape_.dim;
  for (std::uint32_t sample = 0; sample < shape_.samples(); ++sample) {
    if ((present_ >> sample & 1) == 0) continue;
    for (std::uint32_t member = 0; member < shape_.group; ++member) {
      const std::size_t at = std::size_t{sample} * shape_.heads() + kv_head * shape_.group + member;
      const float unit = half_to_float(units_[at]);
      float* sums = moments + std::size_t{1 + member} * dim;
      for (std::uint32_t channel = 0; channel < dim; ++channel) {
        const float value = static_cast<float>(codes_[at * dim + channel]) * unit;
        moments[channel] += value * value;
        sums[channel] += value;
      }
    }
  }
}

std::size_t QuerySamples::bytes() const {
  return sizeof(*this) + codes_.capacity() + units_.capacity() * sizeof(HalfBits);
}

std::vector<std::uint8_t> QuerySamples::pack() const {
  std::vector<std::uint8_t> bytes(sizeof(present_) + units_.size() * sizeof(HalfBits) + codes_.size());
  std::memcpy(bytes.data(), &present_, sizeof(present_));
  std::memcpy(bytes.data() + sizeof(present_), units_.data(), units_.size() * sizeof(HalfBits));
  std::memcpy(bytes.data() + bytes.size() - codes_.size(), codes_.data(), codes_.size());
  return bytes;
}

bool QuerySamples::unpack(std::span<const std::uint8_t> bytes) {
  if (bytes.size() != sizeof(present_) + units_.size() * sizeof(HalfBits) + codes_.size()) return false;
  std::uint64_t present;
  std::vector<HalfBits> units(units_.size());
  std::memcpy(&present, bytes.data(), sizeof(present));
  std::memcpy(units.data(), bytes.data() + sizeof(present), units.size() * sizeof(HalfBits));
  const bool is_unit = std::all_of(units.begin(), units.end(), [](HalfBits unit) { return unit < 0x7C00u; });
  if (!is_unit || (shape_.samples() < 64 && present >> shape_.samples() != 0)) return false;
  present_ = present;
  units_ = std::move(units);
  std::memcpy(codes_.data(), bytes.data() + bytes.size() - codes_.size(), codes_.size());
  return true;
}

QueryHistory::QueryHistory(const QueryShape& shape, const QueryHistory* before, float rest, const QuerySamples& samples)
    : words_(word_count(shape)) {
  const float total = (before != nullptr ? before->weight() * rest : 0.0f) + static_cast<float>(samples.count());
  std::memcpy(words_.data(), &total, sizeof(total));
  std::vector<float> moments(shape.moment_values());
  std::uint16_t* words = words_.data() + kWeightWords;
  for (std::uint32_t kv_head = 0; kv_head < shape.kv_heads; ++kv_head) {
    std::fill(moments.begin(), moments.end(), 0.0f);
    if (before != nullptr) before->read(shape, kv_head, moments.data());
    for (float& moment : moments) moment *= rest;
    samples.add_moments(kv_head, moments.data());
    for (std::uint32_t array = 0; array <= shape.group; ++array, words += 1 + shape.dim) {
      pack_array(moments.data() + std::size_t{array} * shape.dim, shape.dim, words);
    }
  }
}

std::shared_ptr<const QueryHistory> QueryHistory::parse(const QueryShape& shape, std::span<const std::uint8_t> bytes) {
  if (bytes.size() != bytes_of(shape)) return nullptr;
  std::vector<std::uint16_t> words(word_count(shape));
  std::memcpy(words.data(), bytes.data(), bytes.size());
  std::shared_ptr<const QueryHistory> history(new QueryHistory(std::move(words)));
  bool valid = std::isfinite(history->weight()) && history->weight() > 0.0f;
  const std::uint16_t* array = history->words_.data() + kWeightWords;
  for (std::uint32_t index = 0; index < shape.kv_heads * (1 + shape.group); ++index, array += 1 + shape.dim) {
    valid &= valid_array(array, shape.dim, index % (1 + shape.group) != 0);
  }
  return valid ? history : nullptr;
}

float QueryHistory::weight() const {
  float weight;
  std::memcpy(&weight, words_.data(), sizeof(weight));
  return weight;
}

void QueryHistory::read(const QueryShape& shape, std::uint32_t kv_head, float* moments) const {
  const std::size_t arrays = 1 + shape.group;
  const std::uint16_t* words = words_.data() + kWeightWords + kv_head * arrays * (1 + shape.dim);
  for (std::size_t array = 0; array < arrays; ++array, words += 1 + shape.dim) {
    const float unit = std::ldexp(1.0f, exponent_of(words[0]));
    for (std::uint32_t channel = 0; channel < shape.dim; ++channel)
      *moments++ = half_to_float(words[1 + channel]) * unit;
  }
}

std::span<const std::uint8_t> QueryHistory::bytes() const {
  return {reinterpret_cast<const std::uint8_t*>(words_.data()), words_.size() * sizeof(std::uint16_t)};
}

}  // namespace kvarn
