// Recipes and file formats of the golden vectors. All rows come from integer arithmetic (tile_samples.hpp).
#include "golden_set.hpp"

#include <map>

#include "sha256.hpp"

namespace kvarn::testing {
namespace {

using reference::Axis;
using reference::Level;

constexpr Axis kBothAxes[] = {Axis::kKey, Axis::kValue};

std::string axis_text(Axis axis) { return axis == Axis::kKey ? "k" : "v"; }
std::string level_text(Level level) {
  constexpr const char* kNames[] = {"official", "scaled", "fast", "best", "plain"};
  return kNames[static_cast<int>(level)];
}

std::string version_text(RecordVersion version) { return std::to_string(static_cast<int>(version)); }

ExactRows step_rows(std::uint32_t tokens, std::uint32_t dim) {
  ExactRows rows(tokens, dim);
  for (std::uint32_t token = 0; token < tokens; ++token) {
    for (std::uint32_t channel = 0; channel < dim; ++channel) {
      const std::uint32_t step = (7 * token * token + 5 * channel + token * channel) % 31;
      rows.at(token, channel) = float_to_half((static_cast<float>(step) - 15.0f) / 8.0f);
    }
  }
  return rows;
}

// Patterns of a magnitude below `bound` with either sign.
ExactRows pattern_rows(std::uint32_t tokens, std::uint32_t dim, std::uint32_t bound) {
  Random random(bound);
  ExactRows rows(tokens, dim);
  for (HalfBits& half : rows.values) half = static_cast<HalfBits>(random.below(bound) | random.below(2) << 15);
  return rows;
}

std::vector<std::uint8_t> half_bytes(const std::vector<HalfBits>& values) {
  std::vector<std::uint8_t> bytes;
  for (const HalfBits half : values) {
    bytes.push_back(static_cast<std::uint8_t>(half & 0xFFu));
    bytes.push_back(static_cast<std::uint8_t>(half >> 8));
  }
  return bytes;
}

std::vector<std::uint8_t> text_bytes(const std::string& text) { return {text.begin(), text.end()}; }

std::string joined(const std::vector<std::string>& parts, const char* separator) {
  std::string text;
  for (const std::string& part : parts) {
    if (!text.empty()) text += separator;
    text += part;
  }
  return text;
}

// A letter and a number: t32.
std::string tagged(char letter, std::uint32_t number) { return std::string(1, letter).append(std::to_string(number)); }

std::string manifest_line(const GoldenTile& tile, const std::vector<std::uint8_t>& record) {
  const reference::TileSpec& spec = tile.spec;
  const std::string digest = sha256_hex(half_bytes(reference::decode_half_rows(spec, record)));
  return joined(
      {record_name(tile), rows_name(tile), axis_text(spec.axis), std::to_string(spec.tokens), std::to_string(spec.dim),
       std::to_string(spec.bits), level_text(tile.level), version_text(spec.version), digest},
      " ");
}

}  // namespace

std::vector<GoldenTile> golden_tiles() {
  std::vector<GoldenTile> tiles;
  for (const Axis axis : kBothAxes) {
    for (const std::uint32_t bits : {8u, 6u, 5u, 4u, 3u, 2u}) {
      tiles.push_back({{axis, 32, 64, bits}, Level::kScaled, "uneven"});
    }
    for (const std::uint32_t bits : {4u, 2u}) tiles.push_back({{axis, 32, 64, bits}, Level::kOfficial, "uneven"});
    for (const std::uint32_t bits : {4u, 2u}) tiles.push_back({{axis, 32, 64, bits}, Level::kFast, "uneven"});
    for (const std::uint32_t bits : {4u, 2u}) tiles.push_back({{axis, 32, 64, bits}, Level::kPlain, "uneven"});
    for (const char* content : {"constant", "largest", "subnormal"}) {
      tiles.push_back({{axis, 16, 32, 4}, Level::kFast, content});
    }
    for (const char* content : {"constant", "subnormal"}) {
      tiles.push_back({{axis, 16, 32, 4}, Level::kPlain, content});
    }
    for (const char* content : {"zeros", "mixed_zeros", "constant", "largest", "subnormal", "outlier", "small"}) {
      tiles.push_back({{axis, 16, 32, 4}, Level::kScaled, content});
    }
    tiles.push_back({{axis, 16, 32, 4}, Level::kOfficial, "small"});
    tiles.push_back({{axis, 48, 48, 3}, Level::kScaled, "even"});
  }
  for (const std::uint32_t bits : {4u, 2u}) {
    tiles.push_back({{Axis::kValue, 32, 64, bits}, Level::kBest, "uneven"});
  }
  for (const Axis axis : kBothAxes) {
    for (const std::uint32_t bits : {8u, 6u, 5u, 4u, 3u, 2u}) {
      tiles.push_back({{axis, 32, 64, bits, RecordVersion::kBytes}, Level::kFast, "uneven"});
    }
    for (const char* content : {"zeros", "constant", "largest", "subnormal", "outlier"}) {
      tiles.push_back({{axis, 16, 32, 4, RecordVersion::kBytes}, Level::kFast, content});
    }
  }
  tiles.push_back({{Axis::kValue, 32, 64, 4, RecordVersion::kBytes}, Level::kBest, "uneven"});
  tiles.push_back({{Axis::kKey, 16, 16, 3, RecordVersion::kBytes}, Level::kFast, "steps"});
  tiles.push_back({{Axis::kKey, 32, 80, 5}, Level::kScaled, "even"});
  tiles.push_back({{Axis::kValue, 48, 80, 5}, Level::kScaled, "even"});
  tiles.push_back({{Axis::kKey, 32, 96, 6}, Level::kScaled, "even"});
  tiles.push_back({{Axis::kValue, 32, 96, 2}, Level::kScaled, "even"});
  tiles.push_back({{Axis::kKey, 128, 128, 4}, Level::kScaled, "uneven"});
  tiles.push_back({{Axis::kKey, 128, 128, 4}, Level::kOfficial, "uneven"});
  tiles.push_back({{Axis::kValue, 128, 128, 2}, Level::kScaled, "uneven"});
  tiles.push_back({{Axis::kKey, 16, 16, 3}, Level::kScaled, "steps"});  // the worked example of the format page
  return tiles;
}

ExactRows golden_rows(const std::string& content, std::uint32_t tokens, std::uint32_t dim) {
  if (content == "uneven") return uneven_rows(tokens, dim, 2, tokens + dim);
  if (content == "small") return normal_rows(tokens, dim, 0x1p-6f, tokens + dim);
  if (content == "steps") return step_rows(tokens, dim);
  if (content == "zeros") return constant_rows(tokens, dim, 0);
  if (content == "mixed_zeros") return pattern_rows(tokens, dim, 1);
  if (content == "constant") return constant_rows(tokens, dim, float_to_half(-0.3f));
  if (content == "largest") return constant_rows(tokens, dim, 0x7BFF);
  if (content == "subnormal") return pattern_rows(tokens, dim, 0x400);
  ExactRows rows = normal_rows(tokens, dim, 1.0f, tokens + dim);  // even
  if (content == "outlier") rows.at(tokens / 2, dim / 3) = float_to_half(1000.0f);
  return rows;
}

std::string rows_name(const GoldenTile& tile) {
  return joined({tagged('t', tile.spec.tokens), tagged('d', tile.spec.dim), tile.content}, "_").append(".rows");
}

std::string record_name(const GoldenTile& tile) {
  return joined({axis_text(tile.spec.axis), tagged('t', tile.spec.tokens), tagged('d', tile.spec.dim),
                 tagged('b', tile.spec.bits), level_text(tile.level), tile.content},
                "_")
      .append(tile.spec.version == RecordVersion::kBytes ? "_version2" : "")
      .append(".record");
}

std::vector<GoldenFile> golden_files() {
  std::map<std::string, std::vector<std::uint8_t>> files;
  std::string manifest = "# record rows axis tokens dim bits level version sha256_of_decoded_half_rows\n";
  for (const GoldenTile& tile : golden_tiles()) {
    const ExactRows rows = golden_rows(tile.content, tile.spec.tokens, tile.spec.dim);
    const std::vector<std::uint8_t> record = reference::encode(tile.spec, tile.level, rows.pointers()).value();
    files[rows_name(tile)] = half_bytes(rows.values);
    files[record_name(tile)] = record;
    manifest += manifest_line(tile, record) + "\n";
  }
  files["manifest.txt"] = text_bytes(manifest);
  std::string sums;
  for (const auto& [name, bytes] : files) sums += sha256_hex(bytes) + "  " + name + "\n";
  files["SHA256SUMS"] = text_bytes(sums);
  std::vector<GoldenFile> result;
  result.reserve(files.size());
  for (auto& [name, bytes] : files) result.push_back({name, std::move(bytes)});
  return result;
}

}  // namespace kvarn::testing
