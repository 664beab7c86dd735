#include "settings.hpp"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>

#include "byte_count.hpp"
#include "kernels/kernel_table.hpp"

namespace ggml_kvarn {
namespace {

constexpr uint32_t MAX_EXACT_TOKENS = 1u << 20;

// The value of a variable; null if it is not set or empty.
const char * variable(const char * name) {
    const char * text = std::getenv(name);
    return text != nullptr && *text != '\0' ? text : nullptr;
}

std::string read_count(const char * name, uint32_t max, uint32_t & value) {
    const char * text = variable(name);
    if (text == nullptr) {
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

std::string set_preset(Settings & settings, const char * preset) {
    if (kvarn::apply_preset(preset, settings.cache) != kvarn::Status::kOk) {
        return std::string("preset '") + preset +
               "' is unknown: use near-lossless, balanced, small, smallest, f16, or k<bits>v<bits> with bits 8, 6, 5, 4, 3 or 2, for "
               "example k4v2";
    }
    settings.preset = preset;
    return {};
}

std::string set_level(Settings & settings, const char * level) {
    kvarn::EncoderLevel named;
    if (kvarn::level_from_name(level, named) != kvarn::Status::kOk) {
        return std::string("level '") + level + "' is unknown: use best, fast, plain, scaled or official";
    }
    settings.cache.level = named;
    return {};
}

std::string set_fields(Settings & settings, const char * fields) {
    const auto version = kvarn::record_version(fields);
    if (!version) {
        return std::string("'") + fields + "' are no fields of records: use half or byte";
    }
    settings.cache.version = *version;
    return {};
}

// What was named one by one has to go together.
std::string check_fields(const Settings & settings) {
    if (settings.cache.levels_write_version()) {
        return {};
    }
    const std::string level(kvarn::level_name(*settings.cache.level));
    return "KVARN_FIELDS=byte: level '" + level + "' writes no fields of one byte: use best or fast, or KVARN_FIELDS=half";
}

std::string set_codec(Settings & settings, const char * codec) {
    if (kvarn::apply_codec(codec, settings.cache) != kvarn::Status::kOk) {
        return std::string("codec '") + codec + "' is unknown: use kvarn, q8_0, q5_0 or q4_0, or one for K and one for V as in q8_0/q4_0";
    }
    settings.codec = codec;
    return {};
}

void set_tail(Settings & settings, uint32_t tokens) {
    settings.cache.tail_tokens = tokens;
    settings.cache.seals_own_rows = false;
}

void set_no_tail(Settings & settings) {
    settings.cache.tail_tokens = 0;
    settings.cache.seals_own_rows = true;
}

std::string read_tail(Settings & settings) {
    const char * text = variable("KVARN_TAIL");
    if (text == nullptr) {
        return {};
    }
    if (std::strcmp(text, "none") == 0) {
        set_no_tail(settings);
        return {};
    }
    uint32_t tokens = 0;
    if (std::string error = read_count("KVARN_TAIL", MAX_EXACT_TOKENS, tokens); !error.empty()) {
        return error + ", or none";
    }
    set_tail(settings, tokens);
    return {};
}

std::string check_tile(const Settings & settings) {
    return kvarn::valid_tile_tokens(settings.cache.tile_tokens) ? "" : "KVARN_TILE must be a multiple of 16 from 16 to 256";
}

std::string read_tile(Settings & settings) {
    std::string error = read_count("KVARN_TILE", kvarn::kMaxTileTokens, settings.cache.tile_tokens);
    return error.empty() ? check_tile(settings) : error;
}

std::string set_limit(Settings & settings, const char * limit) {
    const auto bytes = parse_byte_count(limit);
    if (!bytes) {
        return std::string("'") + limit + "' is not an amount of memory such as 1G or 512M";
    }
    settings.limit_bytes = *bytes;
    return {};
}

std::string set_isa(Settings &, const char * isa) {
    if (kvarn::select_kernels(isa)) {
        return {};
    }
    std::string known;
    for (const kvarn::KernelTable * table : kvarn::available_kernels()) {
        known += std::string(known.empty() ? "" : ", ") + table->name;
    }
    return std::string("'") + isa + "' is not an instruction set of this machine: use one of " + known;
}

using SetText = std::string (*)(Settings &, const char *);

std::string read_text(Settings & settings, const char * name, SetText set) {
    const char * text = variable(name);
    std::string error = text == nullptr ? "" : set(settings, text);
    return error.empty() ? error : std::string(name) + ": " + error;
}

// What was given is quoted in errors, and may hold anything; an error is one line.
std::string on_one_line(std::string text) {
    const auto is_control = [](unsigned char character) { return character < 0x20 || character == 0x7F; };
    std::replace_if(text.begin(), text.end(), is_control, '?');
    return text;
}

std::string read_variables(Settings & next) {
    std::string error = read_text(next, "KVARN_PRESET", set_preset);
    if (error.empty()) {
        error = read_count("KVARN_SINK", MAX_EXACT_TOKENS, next.cache.sink_tokens);
    }
    if (error.empty()) {
        error = read_tail(next);
    }
    if (error.empty()) {
        error = read_tile(next);
    }
    if (error.empty()) {
        error = read_text(next, "KVARN_LEVEL", set_level);
    }
    if (error.empty()) {
        error = read_text(next, "KVARN_FIELDS", set_fields);
    }
    if (error.empty()) {
        error = check_fields(next);
    }
    if (error.empty()) {
        error = read_text(next, "KVARN_CODEC", set_codec);
    }
    if (error.empty()) {
        error = read_text(next, "KVARN_LIMIT", set_limit);
    }
    if (error.empty()) {
        error = read_text(next, "KVARN_ISA", set_isa);
    }
    return error;
}

}  // namespace

std::string read_environment(Settings & settings) {
    Settings next = settings;
    const std::string error = read_variables(next);
    if (error.empty()) {
        settings = next;
    }
    return on_one_line(error);
}

std::string configure(Settings & settings, const ggml_kvarn_settings * given) {
    if (given == nullptr || given->struct_size != sizeof(ggml_kvarn_settings)) {
        return "the settings are those of another version of the plugin";
    }
    if (given->sink_tokens > MAX_EXACT_TOKENS || given->tail_tokens > MAX_EXACT_TOKENS) {
        return "sink and tail must be at most " + std::to_string(MAX_EXACT_TOKENS) + " tokens";
    }
    Settings next = settings;
    std::string error = given->preset != nullptr ? set_preset(next, given->preset) : "";
    if (error.empty() && given->level != nullptr) {
        error = set_level(next, given->level);
    }
    if (error.empty() && given->codec != nullptr) {
        error = set_codec(next, given->codec);
    }
    if (error.empty() && given->fields != nullptr) {
        error = set_fields(next, given->fields);
    }
    if (error.empty()) {
        error = check_fields(next);
    }
    if (error.empty() && given->tile_tokens >= 0) {
        next.cache.tile_tokens = static_cast<uint32_t>(std::min<int64_t>(given->tile_tokens, MAX_EXACT_TOKENS));
        error = check_tile(next);
    }
    if (!error.empty()) {
        return on_one_line(error);
    }
    if (given->sink_tokens >= 0) {
        next.cache.sink_tokens = static_cast<uint32_t>(given->sink_tokens);
    }
    if (given->tail_tokens == GGML_KVARN_TAIL_NONE) {
        set_no_tail(next);
    } else if (given->tail_tokens >= 0) {
        set_tail(next, static_cast<uint32_t>(given->tail_tokens));
    }
    if (given->limit_bytes >= 0) {
        next.limit_bytes = static_cast<uint64_t>(given->limit_bytes);
    }
    settings = next;
    return {};
}

std::string describe(const Settings & settings) {
    const std::string first = "first " + std::to_string(settings.cache.sink_tokens);
    const std::string exact = settings.cache.seals_own_rows
                                  ? first + " tokens exact, no others (evaluation only)"
                                  : first + " and last " + std::to_string(settings.cache.tail_tokens) + " tokens exact";
    const bool is_baseline = settings.codec != "kvarn" && !settings.cache.exact;
    const std::string codec = is_baseline ? ", codec " + settings.codec + " in f16 rows (evaluation only, no memory is saved)" : "";
    const std::string limit = settings.limit_bytes == 0 ? "" : ", caches limited to " + format_byte_count(settings.limit_bytes);
    const bool has_bytes = settings.cache.version == kvarn::RecordVersion::kBytes && !settings.cache.exact && !is_baseline;
    return "preset " + settings.preset + codec + (has_bytes ? ", fields of one byte, " : ", ") + exact + limit;
}

}  // namespace ggml_kvarn
