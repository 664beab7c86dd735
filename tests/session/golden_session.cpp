#include "golden_session.hpp"

#include <cstdio>

namespace kvarn::testing {
namespace {

CacheConfig golden_config(EncoderLevel level, RecordVersion version) {
  CacheConfig config;
  config.k_bits = 4;
  config.v_bits = 3;
  config.level = level;
  config.version = version;
  config.sink_tokens = 16;
  config.tail_tokens = 16;
  config.tile_tokens = 16;
  return config;
}

// Eighths from -15/8 to 15/8: exact in half precision.
float eighths(std::uint32_t token, std::uint32_t channel, std::uint32_t kind) {
  const std::uint32_t mixed = 7 * token * token + 5 * channel + token * channel + 11 * kind;
  return (static_cast<float>(mixed % 31) - 15.0f) / 8.0f;
}

std::vector<std::uint8_t> file_bytes(const std::string& path) {
  std::vector<std::uint8_t> bytes(1 << 20);
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (file == nullptr) return {};
  bytes.resize(std::fread(bytes.data(), 1, bytes.size(), file));
  std::fclose(file);
  return bytes;
}

}  // namespace

GoldenEngine::GoldenEngine(EncoderLevel level, RecordVersion version)
    : cache_(golden_config(level, version), 1, kCells) {
  for (std::uint32_t layer = 0; layer < kLayers; ++layer) {
    k_.push_back(cache_.add_store(Side::kKey, layer, kKvHeads * kDim));
    v_.push_back(cache_.add_store(Side::kValue, layer, kKvHeads * kDim));
  }
}

void GoldenEngine::append(std::uint32_t count) {
  for (; count > 0; --count) {
    const std::uint32_t token = length();
    tokens_.push_back({1000 + token * 17 % 256, static_cast<std::int32_t>(token), token});
    output_.clear();
    write_rows(token);
    attend(token);
  }
}

void GoldenEngine::write_rows(std::uint32_t token) {
  std::vector<HalfBits> mask(kCells, 0xFC00);
  std::fill(mask.begin(), mask.begin() + token + 1, HalfBits{0});
  (void)cache_.observe({mask.data(), kCells, kCells, 0, 1, 1, kCells}, {&token, 1});
  std::vector<float> row(kKvHeads * kDim);
  for (std::uint32_t layer = 0; layer < kLayers; ++layer) {
    for (const Side side : {Side::kKey, Side::kValue}) {
      const bool is_key = side == Side::kKey;
      for (std::uint32_t at = 0; at < row.size(); ++at) row[at] = eighths(token, at, 2 * layer + (is_key ? 0 : 1));
      std::vector<HalfBits> halves;
      for (const float value : row) halves.push_back(float_to_half(value));
      if (token == 37 && layer == 1 && is_key) halves[5] = 0x7C00;
      (void)cache_.write_row(is_key ? k_[layer] : v_[layer], 0, token, halves.data());
    }
  }
}

void GoldenEngine::attend(std::uint32_t token) {
  std::vector<HalfBits> mask(kCells, 0xFC00);
  std::fill(mask.begin(), mask.begin() + token + 1, HalfBits{0});
  // The token with the infinity is seen by nobody after it.
  if (token > 37) mask[37] = 0xFC00;
  for (std::uint32_t layer = 0; layer < kLayers; ++layer) {
    std::vector<float> q(kHeads * kDim), out(kHeads * kDim);
    for (std::uint32_t at = 0; at < q.size(); ++at) q[at] = eighths(token + 3, at, 20 + layer);
    AttentionParams params;
    params.scale = 0.25f;
    const AttentionTensors tensors{q.data(), 0, q.size(), kDim, out.data(), 0, out.size(), kDim};
    (void)cache_.attend(k_[layer], v_[layer], {kHeads, kKvHeads, kDim, kDim}, params,
                        {mask.data(), kCells, kCells, 0, 1, 1, kCells}, tensors, Runner{});
    output_.insert(output_.end(), out.begin(), out.end());
  }
}

SessionStatus GoldenEngine::load(const Session& session, Session::Records records) {
  const auto tokens = session.tokens(0);
  if (!tokens.ok()) return tokens.status();
  std::vector<std::uint32_t> cells;
  tokens_.clear();
  for (const SessionTokenId& token : tokens.value()) {
    cells.push_back(static_cast<std::uint32_t>(token.position));
    tokens_.push_back({token.id, token.position, cells.back()});
  }
  return session.load(0, cache_, 0, cells, records);
}

SessionContent GoldenEngine::content() {
  static const std::string kModel = "golden model";
  static const std::string kMetadata = "golden metadata";
  const auto bytes = [](const std::string& text) {
    return std::span(reinterpret_cast<const std::uint8_t*>(text.data()), text.size());
  };
  part_ = {&cache_, 0, tokens_};
  return {{&part_, 1}, bytes(kModel), bytes(kMetadata)};
}

std::vector<GoldenSession> golden_sessions(const std::string& scratch) {
  std::vector<GoldenSession> sessions;
  const auto save = [&](const char* name, EncoderLevel level, RecordVersion version,
                        std::initializer_list<std::uint32_t> commits) {
    GoldenEngine engine(level, version);
    for (const std::uint32_t tokens : commits) {
      engine.append(tokens);
      (void)save_session(scratch.c_str(), engine.content(), {.sync = false});
    }
    sessions.push_back({name, file_bytes(scratch)});
    std::remove(scratch.c_str());
  };
  save("scaled.session", EncoderLevel::kScaled, RecordVersion::kHalves, {90});
  save("best_two_commits.session", EncoderLevel::kBest, RecordVersion::kHalves, {70, 25});
  save("best_byte_fields.session", EncoderLevel::kBest, RecordVersion::kBytes, {90});
  return sessions;
}

}  // namespace kvarn::testing
