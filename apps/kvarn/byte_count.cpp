#include "byte_count.hpp"

#include <fmt/format.h>

#include <cctype>
#include <charconv>

namespace kvarn::program {
namespace {

constexpr std::string_view kUnits = "KMGT";  // each 1,024 of the one before
constexpr double kLargest = 4611686018427387904.0;

}  // namespace

std::optional<std::uint64_t> parse_byte_count(std::string_view text) {
  double number = 0.0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
  std::string_view unit = text.substr(static_cast<std::size_t>(stop - text.data()));
  if (error != std::errc() || unit.size() > 3) return std::nullopt;
  if (!unit.empty()) {
    const std::size_t power = kUnits.find(static_cast<char>(std::toupper(static_cast<unsigned char>(unit[0]))));
    unit.remove_prefix(1);
    if (power == std::string_view::npos || !(unit.empty() || unit == "iB" || unit == "B")) return std::nullopt;
    for (std::size_t step = 0; step <= power; ++step) number *= 1024.0;
  }
  if (!(number >= 1.0 && number <= kLargest)) return std::nullopt;
  return static_cast<std::uint64_t>(number);
}

std::string format_byte_count(std::uint64_t bytes) {
  double number = static_cast<double>(bytes);
  if (number < 1024.0) return fmt::format("{} B", bytes);
  std::size_t power = 0;
  for (number /= 1024.0; number >= 1024.0 && power + 1 < kUnits.size(); number /= 1024.0) ++power;
  return fmt::format("{:.1f} {}iB", number, kUnits[power]);
}

}  // namespace kvarn::program
