#include "byte_count.hpp"

#include <cctype>
#include <charconv>
#include <cstdio>

namespace ggml_kvarn {
namespace {

constexpr std::string_view UNITS = "KMGT";  // each 1,024 of the one before
constexpr double LARGEST = 4611686018427387904.0;

}  // namespace

std::optional<uint64_t> parse_byte_count(std::string_view text) {
    double number = 0.0;
    const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
    std::string_view unit = text.substr(static_cast<size_t>(stop - text.data()));
    if (error != std::errc() || unit.size() > 3) {
        return std::nullopt;
    }
    if (!unit.empty()) {
        const size_t power = UNITS.find(static_cast<char>(std::toupper(static_cast<unsigned char>(unit[0]))));
        unit.remove_prefix(1);
        if (power == std::string_view::npos || !(unit.empty() || unit == "iB" || unit == "B")) {
            return std::nullopt;
        }
        for (size_t step = 0; step <= power; ++step) {
            number *= 1024.0;
        }
    }
    if (!(number >= 1.0 && number <= LARGEST)) {
        return std::nullopt;
    }
    return static_cast<uint64_t>(number);
}

std::string format_byte_count(uint64_t bytes) {
    char text[32];
    if (bytes < 1024) {
        std::snprintf(text, sizeof(text), "%u B", static_cast<unsigned>(bytes));
        return text;
    }
    size_t power = 0;
    double number = static_cast<double>(bytes) / 1024.0;
    for (; number >= 1024.0 && power + 1 < UNITS.size(); number /= 1024.0) {
        ++power;
    }
    std::snprintf(text, sizeof(text), "%.1f %ciB", number, UNITS[power]);
    return text;
}

}  // namespace ggml_kvarn
