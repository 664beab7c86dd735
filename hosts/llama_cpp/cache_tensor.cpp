#include "cache_tensor.hpp"

#include <charconv>
#include <string_view>

namespace ggml_kvarn {
namespace {

constexpr std::string_view PREFIX = "cache_";

}  // namespace

std::optional<CacheName> parse_cache_name(const char * name) {
    std::string_view text(name);
    if (text.substr(0, PREFIX.size()) != PREFIX) {
        return std::nullopt;
    }
    text.remove_prefix(PREFIX.size());
    const size_t at = text.rfind("_l");
    if (at == std::string_view::npos || at == 0 || at + 2 == text.size()) {
        return std::nullopt;
    }
    const char side = text[at - 1];
    if (side != 'k' && side != 'v') {
        return std::nullopt;
    }
    uint32_t layer = 0;
    const char * end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data() + at + 2, end, layer);
    if (error != std::errc() || stop != end) {
        return std::nullopt;
    }
    return CacheName{side == 'k' ? kvarn::Side::kKey : kvarn::Side::kValue, layer, std::string(text.substr(0, at - 1))};
}

bool is_cache_or_view_name(const char * name) {
    const std::string bare(name, std::strcspn(name, " "));
    return parse_cache_name(bare.c_str()).has_value();
}

}  // namespace ggml_kvarn
