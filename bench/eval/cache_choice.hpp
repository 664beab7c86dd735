// One cache to measure, as named on the command line:
//   k4v2[@LEVEL]            KVarN with these bits for keys and values, and an encoder level if not the default one
//   balanced[@LEVEL]        a preset by its name: its widths and level count, not its exact tokens
//   f16                     KVarN's exact tiles: what is left is the noise of another order of sums
//   q8_0 | q5_0 | q4_0      ggml's codec inside the same cache, so with the same exact tokens
//   host=f16|q8_0|q5_0|...  llama.cpp's own cache of that type, without the plugin
// each with :sink=N and :tail=N or :tail=none after it, and KVarN's own with :tile=N and :fields=half or :fields=byte.
// Knows nothing of models and contexts.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "format/tile_record.hpp"

namespace kvarn::bench {

// Which tokens stay exact. kNoTail (GGML_KVARN_TAIL_NONE): not even a micro-batch's own rows do, once their tile is
// full.
inline constexpr std::int64_t kNoTail = -2;
inline constexpr std::int64_t kUnset = -1;

struct ExactTokens {
  std::int64_t sink = 128;
  std::int64_t tail = 128;
};

struct CacheChoice {
  enum class Kind { kKvarn, kExact, kBaseline, kHost };
  Kind kind = Kind::kKvarn;
  std::string codec;   // "kvarn", "f16", "q4_0", ...: of a host's cache its type
  std::string preset;  // as the plugin knows it: k4v4, balanced, f16; of KVarN's own caches only
  std::string level;   // empty: none was named
  int k_bits = 16;     // of a code, without metadata
  int v_bits = 16;
  std::int64_t sink_tokens = kUnset;
  std::int64_t tail_tokens = kUnset;
  std::int64_t tile_tokens = kUnset;  // kUnset and empty: as the environment says
  std::string fields;                 // of records: half or byte

  // What is printed: k4v4, k2v2@best:tile=64, q4_0, host q4_0.
  std::string name() const;
  // What the plugin will encode with: the level that was named, else the environment's, else the default of the widths
  // ("fast/best" if K and V differ); empty if it does not encode.
  std::string encoder_level() const;
  // Name and exact tokens: different for different measurements, usable as a file name.
  std::string key() const;
  // Exact tokens matter to caches that compress inside the plugin only.
  bool has_exact_tokens() const { return kind == Kind::kKvarn || kind == Kind::kBaseline; }
};

// Throws UserError if the text names no cache.
CacheChoice parse_cache_choice(std::string_view text);

// Every choice in every regime, those that no regime touches once. A choice keeps the numbers it was given itself.
std::vector<CacheChoice> in_regimes(const std::vector<CacheChoice>& choices, const std::vector<ExactTokens>& regimes);

// What gives records their shape, beside the head dimension, where a choice does not say it.
struct RecordSettings {
  std::uint32_t tile_tokens = 128;
  RecordVersion version = RecordVersion::kHalves;
};

// Tokens of the tiles that the choice seals, or rounds as a baseline.
std::uint32_t tile_tokens_of(const CacheChoice& choice, const RecordSettings& records);

// Bits that a sealed value takes, metadata included.
// [Sizes: docs/format/tile_record.md; ggml: 32 values and one half a block.]
double nominal_bits_per_value(const CacheChoice& choice, std::uint32_t head_dim, const RecordSettings& records);

}  // namespace kvarn::bench
