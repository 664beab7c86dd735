#include "cache/cache_config.hpp"

namespace kvarn {

Status apply_preset(std::string_view preset, CacheConfig& config) {
  if (preset == "f16") {
    config.exact = true;
    return Status::kOk;
  }
  for (const NamedPreset& named : kNamedPresets) {
    if (named.name != preset) continue;
    config.exact = false;
    config.k_bits = named.k_bits;
    config.v_bits = named.v_bits;
    config.tail_tokens = named.tail_tokens;
    config.seals_own_rows = false;
    return Status::kOk;
  }
  if (preset.size() != 4 || preset[0] != 'k' || preset[2] != 'v') return Status::kInvalidArgument;
  if (preset[1] < '0' || preset[1] > '9' || preset[3] < '0' || preset[3] > '9') return Status::kInvalidArgument;
  const std::uint32_t k_bits = static_cast<std::uint32_t>(preset[1] - '0');
  const std::uint32_t v_bits = static_cast<std::uint32_t>(preset[3] - '0');
  if (!valid_code_bits(k_bits) || !valid_code_bits(v_bits)) return Status::kInvalidArgument;
  config.exact = false;
  config.k_bits = k_bits;
  config.v_bits = v_bits;
  return Status::kOk;
}

Status apply_codec(std::string_view codec, CacheConfig& config) {
  const std::size_t slash = codec.find('/');
  const std::string_view names[] = {codec.substr(0, slash),
                                    slash == std::string_view::npos ? codec : codec.substr(slash + 1)};
  BaselineFormat formats[2] = {};
  for (std::size_t side = 0; side < 2; ++side) {
    const auto format = baseline_format(names[side]);
    if (!format && names[side] != "kvarn") return Status::kInvalidArgument;
    formats[side] = format.value_or(BaselineFormat::kNone);
  }
  config.k_baseline = formats[0];
  config.v_baseline = formats[1];
  return Status::kOk;
}

std::optional<RecordVersion> record_version(std::string_view fields) {
  if (fields == "half") return RecordVersion::kHalves;
  if (fields == "byte") return RecordVersion::kBytes;
  return std::nullopt;
}

Status validate(const CacheConfig& config) {
  const bool widths_fit = valid_code_bits(config.k_bits) && valid_code_bits(config.v_bits);
  const bool tail_fits = !config.seals_own_rows || config.tail_tokens == 0;
  const bool fits = valid_tile_tokens(config.tile_tokens) && widths_fit && tail_fits && config.levels_write_version();
  return fits ? Status::kOk : Status::kInvalidArgument;
}

}  // namespace kvarn
