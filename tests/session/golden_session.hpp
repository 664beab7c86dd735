// The golden sessions: a small engine whose rows and queries are made of integers, so that every machine has the same.
#pragma once

#include <string>
#include <vector>

#include "cache/kv_cache.hpp"
#include "session/session.hpp"

namespace kvarn::testing {

// A sequence of tokens at work in a cache of two layers, with two KV heads of 16 channels that two heads each share.
class GoldenEngine {
 public:
  static constexpr std::uint32_t kLayers = 2;
  static constexpr std::uint32_t kKvHeads = 2;
  static constexpr std::uint32_t kHeads = 4;
  static constexpr std::uint32_t kDim = 16;
  static constexpr std::uint32_t kCells = 128;

  GoldenEngine(EncoderLevel level, RecordVersion version);

  // Tokens one by one, the next ones of the text. The key of token 37 in layer 1 holds an infinity.
  void append(std::uint32_t count);
  // Takes over a session's sequence.
  SessionStatus load(const Session& session, Session::Records records);
  SessionContent content();
  KvCache& cache() { return cache_; }
  std::uint32_t length() const { return static_cast<std::uint32_t>(tokens_.size()); }
  // Bits of the outputs of all layers, heads and channels for the newest token.
  const std::vector<float>& newest_output() const { return output_; }

 private:
  void write_rows(std::uint32_t token);
  void attend(std::uint32_t token);

  KvCache cache_;
  std::vector<StoreId> k_, v_;
  std::vector<SessionToken> tokens_;
  SessionPart part_;
  std::vector<float> output_;
};

struct GoldenSession {
  std::string name;
  std::vector<std::uint8_t> bytes;
};
// All golden sessions, as they are made now; scratch: a file of that name is written and removed.
std::vector<GoldenSession> golden_sessions(const std::string& scratch);

}  // namespace kvarn::testing
