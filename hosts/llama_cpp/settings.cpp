#include "settings.hpp"

#include <charconv>
#include <cstdlib>
#include <cstring>

#include "kernels/kernel_table.hpp"

namespace ggml_kvarn {
namespace {

constexpr uint32_t MAX_EXACT_TOKENS = 1u << 20;

std::string read_count(const char * name, uint32_t max, uint32_t & value) {
    const char * text = std::getenv(name);
    if (text == nullptr || *text == '\0') {
        return {};
    }
    uint32_t parsed = 0;
    const char * end = text + std::strlen(text);
    const auto [stop, error] = std::from_chars(text, end, parsed);
    if (error != std::errc() || stop != end || parsed > max) {
        return std::string(name) + "=" + text + " is not a number of tokens from 0 to " + std::to_string(max);
    }
    value = parsed;
    return {};
}

std::string set_preset(Settings & settings, const std::string & preset) {
    if (kvarn::apply_preset(preset, settings.cache) != kvarn::Status::kOk) {
        return "preset '" + preset + "' is unknown: use f16, or k<bits>v<bits> with bits 8, 6, 5, 4, 3 or 2, for example k4v2";
    }
    settings.preset = preset;
    return {};
}

std::string set_level(Settings & settings) {
    const char * level = std::getenv("KVARN_LEVEL");
    if (level == nullptr || *level == '\0' || std::strcmp(level, "scaled") == 0) {
        return {};
    }
    if (std::strcmp(level, "official") != 0) {
        return std::string("KVARN_LEVEL=") + level + " is unknown: use scaled or official";
    }
    settings.cache.level = kvarn::EncoderLevel::kOfficial;
    return {};
}

std::string set_isa() {
    const char * isa = std::getenv("KVARN_ISA");
    if (isa == nullptr || *isa == '\0' || kvarn::select_kernels(isa)) {
        return {};
    }
    std::string known;
    for (const kvarn::KernelTable * table : kvarn::available_kernels()) {
        known += std::string(known.empty() ? "" : ", ") + table->name;
    }
    return std::string("KVARN_ISA=") + isa + " is not an instruction set of this machine: use one of " + known;
}

}  // namespace

std::string read_environment(Settings & settings) {
    Settings next = settings;
    std::string error;
    const char * preset = std::getenv("KVARN_PRESET");
    if (preset != nullptr && *preset != '\0') {
        error = set_preset(next, preset);
        if (!error.empty()) {
            return "KVARN_PRESET: " + error;
        }
    }
    error = read_count("KVARN_SINK", MAX_EXACT_TOKENS, next.cache.sink_tokens);
    if (error.empty()) {
        error = read_count("KVARN_TAIL", MAX_EXACT_TOKENS, next.cache.tail_tokens);
    }
    if (error.empty()) {
        error = read_count("KVARN_TILE", 256, next.cache.tile_tokens);
    }
    if (error.empty() && kvarn::validate(next.cache) != kvarn::Status::kOk) {
        error = "KVARN_TILE must be a multiple of 16 from 16 to 256";
    }
    if (error.empty()) {
        error = set_level(next);
    }
    if (error.empty()) {
        error = set_isa();
    }
    if (error.empty()) {
        settings = next;
    }
    return error;
}

std::string configure(Settings & settings, const char * preset, int64_t sink_tokens, int64_t tail_tokens) {
    Settings next = settings;
    if (preset != nullptr) {
        if (std::string error = set_preset(next, preset); !error.empty()) {
            return error;
        }
    }
    if (sink_tokens > MAX_EXACT_TOKENS || tail_tokens > MAX_EXACT_TOKENS) {
        return "sink and tail must be at most " + std::to_string(MAX_EXACT_TOKENS) + " tokens";
    }
    if (sink_tokens >= 0) {
        next.cache.sink_tokens = static_cast<uint32_t>(sink_tokens);
    }
    if (tail_tokens >= 0) {
        next.cache.tail_tokens = static_cast<uint32_t>(tail_tokens);
    }
    settings = next;
    return {};
}

}  // namespace ggml_kvarn
