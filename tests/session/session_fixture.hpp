// Sequences of the fake engine as sessions, in memory and in files of a directory of the test's own.
#pragma once

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "kept_bytes.hpp"
#include "session/session.hpp"
#include "temporary_folder.hpp"

namespace kvarn {

inline constexpr std::uint32_t kCells = 2048;

inline CacheConfig wide_tiles(const char* preset) { return config_of(preset, 64, 64, 64); }
inline CacheConfig small_tiles(const char* preset) { return config_of(preset, 16, 16, 16); }

inline void use_text(FakeEngine& engine) {
  engine.set_text([](int sequence, std::int64_t) { return static_cast<std::uint32_t>(sequence); });
}

// Tokens of a sequence; the id of a token is its position times 3 plus the sequence.
inline std::vector<SessionToken> tokens_of(const FakeEngine& engine, int sequence) {
  std::vector<SessionToken> tokens;
  for (const std::uint32_t cell : engine.cells_of(sequence)) {
    const auto position = static_cast<std::int32_t>(engine.position_of(cell));
    tokens.push_back({static_cast<std::uint32_t>(position) * 3 + static_cast<std::uint32_t>(sequence), position, cell});
  }
  return tokens;
}

inline std::span<const std::uint8_t> text_bytes(const char* text) {
  return {reinterpret_cast<const std::uint8_t*>(text), std::string(text).size()};
}

// One sequence of one engine, as long as this object lives.
struct EngineContent {
  EngineContent(FakeEngine& engine, int sequence)
      : tokens(tokens_of(engine, sequence)), part{&engine.cache(), 0, tokens}, content{{&part, 1}, {}, {}} {}
  EngineContent(const EngineContent&) = delete;
  EngineContent& operator=(const EngineContent&) = delete;
  std::vector<SessionToken> tokens;
  SessionPart part;
  SessionContent content;
};

inline SessionResult<SaveReport> save(FakeEngine& engine, int sequence, const std::string& path,
                                      SaveOptions options = {.sync = false}) {
  const EngineContent one(engine, sequence);
  return save_session(path.c_str(), one.content, options);
}

inline std::vector<std::uint8_t> sent_bytes(FakeEngine& engine, int sequence) {
  const EngineContent one(engine, sequence);
  std::vector<std::uint8_t> bytes;
  const ByteSink sink{&bytes, [](void* context, const std::uint8_t* data, std::size_t size) {
                        auto& out = *static_cast<std::vector<std::uint8_t>*>(context);
                        out.insert(out.end(), data, data + size);
                        return true;
                      }};
  const auto sent = send_session(one.content, sink);
  EXPECT_TRUE(sent.ok() && sent.value() == bytes.size());
  return bytes;
}

inline SessionResult<Session> open_bytes(const std::vector<std::uint8_t>& bytes) {
  auto memory = SessionBytes::allocate(std::max<std::size_t>(bytes.size(), 1));
  std::copy(bytes.begin(), bytes.end(), memory->writable());
  return Session::open(std::shared_ptr<const SessionBytes>(std::move(memory)));
}

inline SessionStatus load(const Session& session, FakeEngine& engine, int sequence, Session::Records records) {
  const auto tokens = session.tokens(0);
  if (!tokens.ok()) return tokens.status();
  std::vector<std::int64_t> positions;
  for (const SessionTokenId& token : tokens.value()) positions.push_back(token.position);
  const std::vector<std::uint32_t> cells = engine.claim(sequence, positions);
  const SessionStatus status = session.load(0, engine.cache(), 0, cells, records);
  if (status != SessionStatus::kOk) engine.remove(sequence);
  return status;
}

inline void expect_same_sequence(FakeEngine& left, FakeEngine& right, int sequence = 0) {
  for (const Side side : {Side::kKey, Side::kValue}) {
    expect_same(kept_bytes(left, sequence, 0, side), kept_bytes(right, sequence, 0, side));
  }
}

// A directory that is gone with the test.
class SessionFiles : public ::testing::Test {
 protected:
  ~SessionFiles() override {
    for (const std::string& name : names_) {
      std::remove(name.c_str());
      std::remove((name + ".partial").c_str());
    }
  }
  std::string file(const char* name) {
    names_.push_back(folder_.file(name));
    return names_.back();
  }
  static std::uint64_t size_of(const std::string& path) {
    struct stat info {};
    return stat(path.c_str(), &info) == 0 ? static_cast<std::uint64_t>(info.st_size) : 0;
  }
  static std::vector<std::uint8_t> bytes_of(const std::string& path) {
    std::vector<std::uint8_t> bytes(size_of(path));
    std::FILE* opened = std::fopen(path.c_str(), "rb");
    if (opened == nullptr) return {};
    bytes.resize(std::fread(bytes.data(), 1, bytes.size(), opened));
    std::fclose(opened);
    return bytes;
  }
  static void write_bytes(const std::string& path, std::span<const std::uint8_t> bytes) {
    std::FILE* opened = std::fopen(path.c_str(), "wb");
    ASSERT_NE(opened, nullptr);
    if (!bytes.empty()) {
      ASSERT_EQ(std::fwrite(bytes.data(), 1, bytes.size(), opened), bytes.size());
    }
    std::fclose(opened);
  }

 private:
  testing::TemporaryFolder folder_;
  std::vector<std::string> names_;
};

}  // namespace kvarn
