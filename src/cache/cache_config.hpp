// What a cache is asked to do: code widths, exact ranges, tile length; and the names people give such settings.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/result.hpp"
#include "codec/baseline_codec.hpp"
#include "codec/tile_codec.hpp"

namespace kvarn {

struct CacheConfig {
  bool exact = false;        // preset f16: nothing is sealed, every row stays what the engine wrote
  std::uint32_t k_bits = 4;  // 8, 6, 5, 4, 3 or 2
  std::uint32_t v_bits = 4;
  std::optional<EncoderLevel> level;  // of both sides; nothing: the default of each side's width
  // Not kNone: instead of being sealed, a tile's rows are rounded to this format and stay rows. To compare codecs.
  BaselineFormat k_baseline = BaselineFormat::kNone;
  BaselineFormat v_baseline = BaselineFormat::kNone;
  std::uint32_t sink_tokens = 128;  // tiles that hold one of the first sink_tokens of a sequence stay exact
  std::uint32_t tail_tokens = 128;  // rows seen exactly before the rows of a micro-batch itself
  // Seals a tile as soon as it is complete, before the micro-batch that completes it attends: even a micro-batch's own
  // rows are then read from records, in every layer at once. Only to evaluate codecs; tail_tokens must be 0. Sliding
  // windows stay exact from the micro-batch on that shows them to be windows.
  bool seals_own_rows = false;
  std::uint32_t tile_tokens = 128;  // multiple of 16, at most kMaxTileTokens
  // Of the records that are written, and of all that are read; what is kept of queries has numbers of that size, too.
  RecordVersion version = RecordVersion::kHalves;
  constexpr EncoderLevel k_level() const { return level.value_or(default_level(k_bits)); }
  constexpr EncoderLevel v_level() const { return level.value_or(default_level(v_bits)); }
  // The levels of both sides write records of this version.
  constexpr bool levels_write_version() const {
    return writes_version(k_level(), version) && writes_version(v_level(), version);
  }
  // The encoder of K asks what queries have looked like.
  constexpr bool keeps_queries() const {
    return !exact && k_level() == EncoderLevel::kBest && k_baseline == BaselineFormat::kNone;
  }
  constexpr TileShape record_shape(Side side, std::uint32_t dim, std::uint32_t bits) const {
    return tile_shape(side, tile_tokens, dim, bits, version);
  }
  constexpr TileShape record_shape(Side side, std::uint32_t dim) const {
    return record_shape(side, dim, side == Side::kKey ? k_bits : v_bits);
  }
  friend constexpr bool operator==(const CacheConfig&, const CacheConfig&) = default;
};

constexpr bool valid_tile_tokens(std::uint32_t tokens) {
  return tokens >= 16 && tokens <= kMaxTileTokens && tokens % 16 == 0;
}

// The heads of one layer: rows of K are [kv_heads, dim_k], rows of V [kv_heads, dim_v], queries [heads, dim_k].
struct HeadCounts {
  std::uint32_t heads;
  std::uint32_t kv_heads;
  std::uint32_t dim_k;
  std::uint32_t dim_v;
};

inline constexpr std::uint32_t kLayerStagger = 16;  // layers seal a tile over this many steps

// A named choice between size and closeness.
struct NamedPreset {
  std::string_view name;
  std::uint32_t k_bits;
  std::uint32_t v_bits;
  std::uint32_t tail_tokens;
};
inline constexpr NamedPreset kNamedPresets[] = {
    {"near-lossless", 6, 6, 128},
    {"balanced", 4, 4, 128},  // what a CacheConfig is by default
    {"small", 3, 3, 128},
    {"smallest", 2, 2, 128},
};

// Sets `config` from a preset name: one of kNamedPresets (widths and tail), "f16" (exact) or "k<bits>v<bits>",
// for example "k4v2" (widths alone). kInvalidArgument for anything else; the config is then untouched.
Status apply_preset(std::string_view preset, CacheConfig& config);

// Sets what `config` makes of tiles that are due, from a codec name: "kvarn" (records), "q8_0", "q5_0", "q4_0", or one
// of these for K and one for V, as in "q8_0/q4_0". kInvalidArgument for anything else; the config is then untouched.
Status apply_codec(std::string_view codec, CacheConfig& config);

// The version of records whose fields people call "half" or "byte"; nothing for any other word.
std::optional<RecordVersion> record_version(std::string_view fields);

// kInvalidArgument unless widths and tile length are in range, the levels write the version of the records, and a tail
// is not asked for and forbidden at once.
Status validate(const CacheConfig& config);

}  // namespace kvarn
