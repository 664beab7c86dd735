#include "cache_choice.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <optional>

#include "cache/cache_config.hpp"
#include "codec/baseline_codec.hpp"
#include "format/tile_record.hpp"
#include "record_setting.hpp"
#include "user_error.hpp"

namespace kvarn::bench {
namespace {

constexpr const char* kRecordSettings = "tiles have a multiple of 16 tokens from 16 to 256, fields are half or byte";
constexpr std::string_view kHostPrefix = "host=";
constexpr std::string_view kCodecPrefix = "codec=";
constexpr std::int64_t kMaxExactTokens = 1 << 20;

[[noreturn]] void refuse(std::string_view text, const std::string& what) {
  throw program::UserError(fmt::format("'{}' names no cache: {}", text, what),
                           "use k<bits>v<bits>[@level], a preset, f16, q8_0, q5_0, q4_0 or host=TYPE, then :sink=N, "
                           ":tail=N, :tile=N, :fields=byte");
}

std::optional<std::int64_t> parse_count(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  return whole && value >= 0 && value <= kMaxExactTokens ? std::optional(value) : std::nullopt;
}

void read_record_setting(std::string_view text, std::string_view setting, CacheChoice& choice) {
  if (choice.kind != CacheChoice::Kind::kKvarn) refuse(text, fmt::format("{} has no records", choice.name()));
  CacheConfig config;
  if (!apply_record_setting(setting, config)) refuse(text, kRecordSettings);
  if (setting.starts_with("fields")) {
    choice.fields = setting.substr(setting.find('=') + 1);
  } else {
    choice.tile_tokens = config.tile_tokens;
  }
}

void read_setting(std::string_view text, std::string_view setting, CacheChoice& choice) {
  const std::size_t equals = setting.find('=');
  const std::string_view name = setting.substr(0, equals);
  const std::string_view value = equals == std::string_view::npos ? "" : setting.substr(equals + 1);
  if (name == "tile" || name == "fields") return read_record_setting(text, setting, choice);
  if (name != "sink" && name != "tail") refuse(text, fmt::format("'{}' is no setting", setting));
  if (!choice.has_exact_tokens()) refuse(text, fmt::format("{} has no exact tokens to choose", choice.name()));
  const bool no_tail = name == "tail" && value == "none";
  const std::optional<std::int64_t> count = no_tail ? kNoTail : parse_count(value);
  if (!count) refuse(text, fmt::format("'{}' is not a number of tokens", value));
  (name == "sink" ? choice.sink_tokens : choice.tail_tokens) = *count;
}

bool read_preset(std::string_view name, CacheChoice& choice) {
  CacheConfig config;
  if (apply_preset(name, config) != Status::kOk || config.exact) return false;
  choice.preset = name;
  choice.codec = "kvarn";
  choice.k_bits = static_cast<int>(config.k_bits);
  choice.v_bits = static_cast<int>(config.v_bits);
  return true;
}

void read_block_type(std::string_view text, std::string_view name, CacheChoice& choice) {
  choice.codec = name;
  if (name == "f16") return;
  const std::optional<BaselineFormat> format = baseline_format(name);
  if (!format) refuse(text, fmt::format("'{}' is none of f16, q8_0, q5_0, q4_0", name));
  choice.k_bits = choice.v_bits = baseline_code_bits(*format);
}

CacheChoice parse_codec(std::string_view text, std::string_view codec) {
  CacheChoice choice;
  if (codec.starts_with(kHostPrefix)) {
    choice.kind = CacheChoice::Kind::kHost;
    read_block_type(text, codec.substr(kHostPrefix.size()), choice);
    return choice;
  }
  if (codec.starts_with(kCodecPrefix)) codec.remove_prefix(kCodecPrefix.size());
  if (codec == "f16" || baseline_format(codec)) {
    choice.kind = codec == "f16" ? CacheChoice::Kind::kExact : CacheChoice::Kind::kBaseline;
    if (codec == "f16") choice.preset = codec;
    read_block_type(text, codec, choice);
    return choice;
  }
  const std::size_t at = codec.find('@');
  if (at != std::string_view::npos) choice.level = codec.substr(at + 1);
  if (at != std::string_view::npos && choice.level.empty()) refuse(text, "no level after '@'");
  if (!read_preset(codec.substr(0, at), choice))
    refuse(text, "neither a preset's name nor widths of 8, 6, 5, 4, 3 or 2 bits");
  return choice;
}

}  // namespace

std::string CacheChoice::encoder_level() const {
  if (kind != Kind::kKvarn || !level.empty()) return level;
  const char* environment = std::getenv("KVARN_LEVEL");
  if (environment != nullptr && *environment != '\0') return environment;
  const auto name_of = [](int bits) {
    return std::string(level_name(default_level(static_cast<std::uint32_t>(bits))));
  };
  const std::string k = name_of(k_bits), v = name_of(v_bits);
  return k == v ? k : k + "/" + v;
}

std::string CacheChoice::name() const {
  switch (kind) {
    case Kind::kKvarn: {
      const std::string tile = tile_tokens == kUnset ? "" : fmt::format(":tile={}", tile_tokens);
      return preset + (level.empty() ? "" : "@" + level) + tile + (fields.empty() ? "" : ":fields=" + fields);
    }
    case Kind::kHost:
      return "host " + codec;
    default:
      return codec;
  }
}

std::string CacheChoice::key() const {
  std::string text = name();
  std::replace(text.begin(), text.end(), ' ', '=');
  if (sink_tokens != kUnset) text += fmt::format(":sink={}", sink_tokens);
  if (tail_tokens == kNoTail) return text + ":tail=none";
  return tail_tokens == kUnset ? text : text + fmt::format(":tail={}", tail_tokens);
}

CacheChoice parse_cache_choice(std::string_view text) {
  const std::vector<std::string_view> parts = split_settings(text);
  CacheChoice choice = parse_codec(text, parts[0]);
  for (std::size_t i = 1; i < parts.size(); ++i) read_setting(text, parts[i], choice);
  return choice;
}

std::vector<CacheChoice> in_regimes(const std::vector<CacheChoice>& choices, const std::vector<ExactTokens>& regimes) {
  std::vector<CacheChoice> all;
  for (const ExactTokens& regime : regimes) {
    for (CacheChoice choice : choices) {
      if (choice.has_exact_tokens()) {
        if (choice.sink_tokens == kUnset) choice.sink_tokens = regime.sink;
        if (choice.tail_tokens == kUnset) choice.tail_tokens = regime.tail;
      }
      const auto is_same = [&](const CacheChoice& other) { return other.key() == choice.key(); };
      if (std::none_of(all.begin(), all.end(), is_same)) all.push_back(choice);
    }
  }
  return all;
}

std::uint32_t tile_tokens_of(const CacheChoice& choice, const RecordSettings& records) {
  return choice.tile_tokens == kUnset ? records.tile_tokens : static_cast<std::uint32_t>(choice.tile_tokens);
}

double nominal_bits_per_value(const CacheChoice& choice, std::uint32_t head_dim, const RecordSettings& records) {
  if (choice.kind != CacheChoice::Kind::kKvarn) {
    return baseline_bits_per_value(baseline_format(choice.codec).value_or(BaselineFormat::kNone));
  }
  const auto k_bits = static_cast<std::uint32_t>(choice.k_bits);
  const auto v_bits = static_cast<std::uint32_t>(choice.v_bits);
  const std::uint32_t tokens = tile_tokens_of(choice, records);
  const RecordVersion version = record_version(choice.fields).value_or(records.version);
  const std::size_t bytes = record_bytes(tile_shape(Side::kKey, tokens, head_dim, k_bits, version)) +
                            record_bytes(tile_shape(Side::kValue, tokens, head_dim, v_bits, version));
  return 8.0 * static_cast<double>(bytes) / (2.0 * head_dim * tokens);
}

}  // namespace kvarn::bench
