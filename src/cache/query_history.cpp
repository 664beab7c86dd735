#include "cache/query_history.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

namespace kvarn {
namespace {

constexpr float kTopCode = 127.0f;
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

std::int8_t nearest_code(float value) {
  return static_cast<std::int8_t>(std::clamp(std::nearbyint(value), -kTopCode, kTopCode));
}

// How the numbers of an array are stored.
enum class NumberForm : std::uint8_t {
  kHalf,
  kSquareByte,  // the upper byte of a half without its sign: five bits of exponent, three of fraction
  kSumByte,     // two's complement
};

// Array 0 of a KV head holds the squares, each of the others the sums of a query head.
NumberForm form_of(const QueryShape& shape, std::uint32_t array) {
  if (shape.version == RecordVersion::kHalves) return NumberForm::kHalf;
  return array == 0 ? NumberForm::kSquareByte : NumberForm::kSumByte;
}

std::size_t array_bytes(const QueryShape& shape) {
  return sizeof(std::int16_t) + shape.dim * (shape.version == RecordVersion::kHalves ? sizeof(HalfBits) : 1);
}

// The largest number of an array lies in [2^top, 2^(top + 1)): below what half precision holds, and numbers 2^28 times
// smaller still keep all their bits; or where a signed byte ends.
int top_exponent(NumberForm form) { return form == NumberForm::kSumByte ? 6 : 14; }

void put_number(NumberForm form, float value, std::uint32_t at, std::uint8_t* numbers) {
  if (form == NumberForm::kHalf) {
    const HalfBits half = float_to_half(value);
    std::memcpy(numbers + at * sizeof(half), &half, sizeof(half));
  } else if (form == NumberForm::kSquareByte) {
    // Not up to 2^15: what is rounded once more would then be scaled otherwise, and not come out the same.
    constexpr std::uint32_t kLargest = 29u << 3 | 7u;
    numbers[at] = static_cast<std::uint8_t>(std::min((float_to_half(value) + 64u) >> 7, kLargest));
  } else {
    numbers[at] = static_cast<std::uint8_t>(nearest_code(value));
  }
}

HalfBits half_at(const std::uint8_t* numbers, std::uint32_t at) {
  HalfBits half;
  std::memcpy(&half, numbers + at * sizeof(half), sizeof(half));
  return half;
}

float number_at(NumberForm form, const std::uint8_t* numbers, std::uint32_t at) {
  if (form == NumberForm::kHalf) return half_to_float(half_at(numbers, at));
  if (form == NumberForm::kSquareByte) return half_to_float(static_cast<HalfBits>(numbers[at] << 7));
  return static_cast<float>(static_cast<std::int8_t>(numbers[at]));
}

// Finite, and not negative where it is a square.
bool valid_number(NumberForm form, const std::uint8_t* numbers, std::uint32_t at, bool may_be_negative) {
  constexpr HalfBits kInfinity = 0x7C00;
  if (form == NumberForm::kSumByte) return true;
  if (form == NumberForm::kSquareByte) return numbers[at] < kInfinity >> 7;
  const HalfBits half = half_at(numbers, at);
  return (half & 0x7FFFu) < kInfinity && (may_be_negative || (half & 0x8000u) == 0);
}

void pack_array(NumberForm form, const float* values, std::uint32_t count, std::uint8_t* array) {
  const float largest = largest_magnitude(values, count);
  const int wanted = largest == 0.0f ? 0 : std::ilogb(largest) - top_exponent(form);
  const auto exponent = static_cast<std::int16_t>(std::clamp(wanted, -kMaxExponent, kMaxExponent));
  const float inverse_unit = std::ldexp(1.0f, -exponent);
  std::memcpy(array, &exponent, sizeof(exponent));
  for (std::uint32_t at = 0; at < count; ++at) {
    put_number(form, values[at] * inverse_unit, at, array + sizeof(exponent));
  }
}

int exponent_of(const std::uint8_t* array) {
  std::int16_t exponent;
  std::memcpy(&exponent, array, sizeof(exponent));
  return exponent;
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
      codes_[at * shape_.dim + channel] = unit == 0.0f ? std::int8_t{0} : nearest_code(values[channel] / unit);
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
    : bytes_(bytes_of(shape)) {
  const float total = (before != nullptr ? before->weight() * rest : 0.0f) + static_cast<float>(samples.count());
  std::memcpy(bytes_.data(), &total, sizeof(total));
  std::vector<float> moments(shape.moment_values());
  std::uint8_t* bytes = bytes_.data() + sizeof(total);
  for (std::uint32_t kv_head = 0; kv_head < shape.kv_heads; ++kv_head) {
    std::fill(moments.begin(), moments.end(), 0.0f);
    if (before != nullptr) before->read(shape, kv_head, moments.data());
    for (float& moment : moments) moment *= rest;
    samples.add_moments(kv_head, moments.data());
    for (std::uint32_t array = 0; array <= shape.group; ++array, bytes += array_bytes(shape)) {
      pack_array(form_of(shape, array), moments.data() + std::size_t{array} * shape.dim, shape.dim, bytes);
    }
  }
}

std::size_t QueryHistory::bytes_of(const QueryShape& shape) {
  return sizeof(float) + std::size_t{shape.kv_heads} * (1 + shape.group) * array_bytes(shape);
}

std::shared_ptr<const QueryHistory> QueryHistory::parse(const QueryShape& shape, std::span<const std::uint8_t> bytes) {
  if (bytes.size() != bytes_of(shape)) return nullptr;
  std::shared_ptr<const QueryHistory> history(new QueryHistory({bytes.begin(), bytes.end()}));
  bool valid = std::isfinite(history->weight()) && history->weight() > 0.0f;
  const std::uint8_t* array = history->bytes_.data() + sizeof(float);
  for (std::uint32_t index = 0; index < shape.kv_heads * (1 + shape.group); ++index, array += array_bytes(shape)) {
    const std::uint32_t of_head = index % (1 + shape.group);
    valid &= std::abs(exponent_of(array)) <= kMaxExponent;
    for (std::uint32_t at = 0; at < shape.dim; ++at) {
      valid &= valid_number(form_of(shape, of_head), array + sizeof(std::int16_t), at, of_head != 0);
    }
  }
  return valid ? history : nullptr;
}

float QueryHistory::weight() const {
  float weight;
  std::memcpy(&weight, bytes_.data(), sizeof(weight));
  return weight;
}

void QueryHistory::read(const QueryShape& shape, std::uint32_t kv_head, float* moments) const {
  const std::size_t arrays = 1 + shape.group;
  const std::uint8_t* bytes = bytes_.data() + sizeof(float) + kv_head * arrays * array_bytes(shape);
  for (std::uint32_t array = 0; array < arrays; ++array, bytes += array_bytes(shape)) {
    const float unit = std::ldexp(1.0f, exponent_of(bytes));
    for (std::uint32_t channel = 0; channel < shape.dim; ++channel) {
      *moments++ = number_at(form_of(shape, array), bytes + sizeof(std::int16_t), channel) * unit;
    }
  }
}

}  // namespace kvarn
