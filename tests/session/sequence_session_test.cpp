// Sessions of the cache that knows its sequences: whatever state a sequence was in, it goes on with the same attention
// bits as if it had never left; forks, cuts, tiles of other widths and mapped files included.
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <string>

#include "cache/kv_cache.hpp"
#include "sequence_model.hpp"
#include "session/session_error.hpp"
#include "session_fixture.hpp"

namespace kvarn {
namespace {

constexpr Session::Records kBoth[] = {Session::Records::kCopied, Session::Records::kMapped};
constexpr SequenceLimits kLimits{4, 4000, MemoryLimit::kNone};
using Outputs = std::vector<std::vector<float>>;

std::vector<SessionToken> session_tokens(const Text& text) {
  std::vector<SessionToken> tokens;
  for (std::uint32_t at = 0; at < text.size(); ++at) tokens.push_back({text[at], static_cast<std::int32_t>(at), 0});
  return tokens;
}

// One sequence, as long as this object lives.
struct SequenceContent {
  SequenceContent(SequenceCache& cache, SequenceId sequence, const Text& text)
      : tokens(session_tokens(text)), part{&cache, sequence, tokens}, content{{&part, 1}, {}, {}} {}
  SequenceContent(const SequenceContent&) = delete;
  SequenceContent& operator=(const SequenceContent&) = delete;
  std::vector<SessionToken> tokens;
  SessionPart part;
  SessionContent content;
};

std::vector<std::uint8_t> sent(SequenceCache& cache, SequenceId sequence, const Text& text) {
  const SequenceContent one(cache, sequence, text);
  std::vector<std::uint8_t> bytes;
  const ByteSink sink{&bytes, [](void* context, const std::uint8_t* data, std::size_t size) {
                        auto& out = *static_cast<std::vector<std::uint8_t>*>(context);
                        out.insert(out.end(), data, data + size);
                        return true;
                      }};
  const auto done = send_session(one.content, sink);
  EXPECT_TRUE(done.ok()) << session_status_text(done.status());
  return bytes;
}

SessionResult<SaveReport> save(SequenceCache& cache, SequenceId sequence, const Text& text, const std::string& path) {
  const SequenceContent one(cache, sequence, text);
  return save_session(path.c_str(), one.content, {.sync = false});
}

SessionStatus load(const Session& session, SnapshotTarget& cache, SequenceId sequence, Session::Records records) {
  const std::vector<std::uint32_t> cells(session.index().parts[0].tokens);
  return session.load(0, cache, sequence, cells, records);
}

// Step by step what a cache computes.
std::vector<Outputs> go_on(const SequenceModel& model, SequenceCache& cache, SequenceId sequence, Text text,
                           std::uint32_t steps) {
  std::vector<Outputs> outputs;
  for (std::uint32_t step = 0; step < steps; ++step) {
    const std::uint32_t tokens = step % 5 == 4 ? 9 : 1;
    outputs.push_back(model.extend(cache, sequence, text, text_of(tokens, 1000 + step)));
  }
  return outputs;
}

void append(const SequenceModel& model, SequenceCache& cache, SequenceId sequence, Text& text, std::uint32_t tokens,
            std::uint32_t step = 1) {
  for (std::uint32_t done = 0; done < tokens; done += step) {
    model.extend(cache, sequence, text, text_of(std::min(step, tokens - done), 50 + done + 7 * sequence));
  }
}

struct Case {
  const char* name;
  void (*run)(const SequenceModel&, SequenceCache&, Text&);  // leaves the text of sequence 0
};
const Case kCases[] = {
    {"nothing sealed",
     [](const SequenceModel& model, SequenceCache& cache, Text& text) { append(model, cache, 0, text, 20, 20); }},
    {"one step",
     [](const SequenceModel& model, SequenceCache& cache, Text& text) { append(model, cache, 0, text, 190, 190); }},
    {"token by token",
     [](const SequenceModel& model, SequenceCache& cache, Text& text) { append(model, cache, 0, text, 203); }},
    {"while tiles are sealed layer by layer",
     [](const SequenceModel& model, SequenceCache& cache, Text& text) { append(model, cache, 0, text, 184); }},
    {"cut in the tail",
     [](const SequenceModel& model, SequenceCache& cache, Text& text) {
       append(model, cache, 0, text, 200);
       text.resize(187);
       ASSERT_EQ(cache.truncate(0, 187), Status::kOk);
     }},
    {"cut inside a sealed tile",
     [](const SequenceModel& model, SequenceCache& cache, Text& text) {
       append(model, cache, 0, text, 200);
       text.resize(70);
       ASSERT_EQ(cache.truncate(0, 70), Status::kOk);
     }},
    {"a fork ahead, whose tiles are sealed",
     [](const SequenceModel& model, SequenceCache& cache, Text& text) {
       append(model, cache, 0, text, 150);
       ASSERT_EQ(cache.fork(0, 1), Status::kOk);
       Text ahead = text;
       append(model, cache, 1, ahead, 60);
     }},
    {"a fork that was cut",
     [](const SequenceModel& model, SequenceCache& cache, Text& text) {
       Text long_text;
       append(model, cache, 1, long_text, 200);
       ASSERT_EQ(cache.fork(1, 0), Status::kOk);
       ASSERT_EQ(cache.truncate(0, 120), Status::kOk);
       text.assign(long_text.begin(), long_text.begin() + 120);
     }},
    {"made smaller",
     [](const SequenceModel& model, SequenceCache& cache, Text& text) {
       append(model, cache, 0, text, 210);
       const SequenceId chosen[] = {0};
       ASSERT_EQ(cache.shrink(chosen, {0, 2}, model.runner), Status::kFull);
     }},
    {"one token",
     [](const SequenceModel& model, SequenceCache& cache, Text& text) { append(model, cache, 0, text, 1); }},
};

TEST(SequenceSession, LoadedSequence_GoesOnWithTheSameBits) {
  const SequenceModel model{.layers = 4};
  for (const char* preset : {"f16", "k8v8", "k4v4", "k3v2", "k4v3+bytes"}) {
    for (const Case& scenario : kCases) {
      SCOPED_TRACE(std::string(preset) + ", " + scenario.name);
      const auto source = model.make_cache(small_config(preset), kLimits);
      Text text;
      ASSERT_NO_FATAL_FAILURE(scenario.run(model, *source, text));
      const auto session = open_bytes(sent(*source, 0, text));
      ASSERT_TRUE(session.ok()) << session_status_text(session.status());
      EXPECT_EQ(session.value().verify(), SessionStatus::kOk);
      const auto tokens = session.value().tokens(0);
      ASSERT_TRUE(tokens.ok());
      ASSERT_EQ(tokens.value().size(), text.size());
      EXPECT_EQ(tokens.value().back(), (SessionTokenId{text.back(), static_cast<std::int32_t>(text.size() - 1)}));
      const auto expected = go_on(model, *source, 0, text, 60);
      for (const Session::Records records : kBoth) {
        const auto target = model.make_cache(small_config(preset), kLimits);
        Text other;
        append(model, *target, 1, other, 40, 40);  // other numbers of tiles than before
        ASSERT_EQ(load(session.value(), *target, 2, records), SessionStatus::kOk);
        ASSERT_EQ(target->length(2), text.size());
        EXPECT_TRUE(go_on(model, *target, 2, text, 60) == expected);
      }
    }
  }
}

// The same case by case, but the loaded sequence is saved and compared byte by byte.
TEST(SequenceSession, SavedFromALoadedCache_IsTheSameBytes) {
  const SequenceModel model{.layers = 3};
  for (const Case& scenario : kCases) {
    SCOPED_TRACE(scenario.name);
    const auto source = model.make_cache(small_config(), kLimits);
    Text text;
    ASSERT_NO_FATAL_FAILURE(scenario.run(model, *source, text));
    const std::vector<std::uint8_t> bytes = sent(*source, 0, text);
    const auto session = open_bytes(bytes);
    ASSERT_TRUE(session.ok());
    for (const Session::Records records : kBoth) {
      const auto target = model.make_cache(small_config(), kLimits);
      ASSERT_EQ(load(session.value(), *target, 3, records), SessionStatus::kOk);
      EXPECT_TRUE(sent(*target, 3, text) == bytes);
    }
  }
}

TEST(SequenceSession, FormatVersion_IsThatOfTheWidthsInside) {
  const SequenceModel model;
  const auto cache = model.make_cache(small_config(), kLimits);
  Text text;
  append(model, *cache, 0, text, 200, 10);
  EXPECT_EQ(open_bytes(sent(*cache, 0, text)).value().version(), kSessionVersion);
  const SequenceId chosen[] = {0};
  (void)cache->shrink(chosen, {0, 2}, Runner{});
  const auto mixed = open_bytes(sent(*cache, 0, text));
  ASSERT_TRUE(mixed.ok());
  EXPECT_EQ(mixed.value().version(), kMixedWidthsVersion);
  // A cache that has no such widths says so and takes nothing.
  KvCache cells(small_config(), 1, 256);
  model.add_stores(cells);
  std::vector<std::uint32_t> numbers(text.size());
  std::iota(numbers.begin(), numbers.end(), 0u);
  EXPECT_EQ(mixed.value().load(0, cells, 0, numbers, Session::Records::kMapped), SessionStatus::kOtherShape);
  EXPECT_FALSE(cells.written(0, 5));
}

TEST(SequenceSession, MappedSequence_TakesNoMemoryForItsRecords) {
  const SequenceModel model;
  const auto source = model.make_cache(small_config(), kLimits);
  Text text;
  append(model, *source, 0, text, 400, 20);
  const auto session = open_bytes(sent(*source, 0, text));
  ASSERT_TRUE(session.ok());
  const auto target = model.make_cache(small_config(), kLimits);
  ASSERT_EQ(load(session.value(), *target, 0, Session::Records::kMapped), SessionStatus::kOk);
  EXPECT_EQ(target->account().mapped_bytes, source->account().record_bytes);
  EXPECT_EQ(target->account().record_bytes, 0u);
  EXPECT_EQ(target->account(0).sealed_tokens, source->account(0).sealed_tokens);
  ASSERT_EQ(target->fork(0, 1), Status::kOk);
  ASSERT_EQ(target->drop(0), Status::kOk);
  EXPECT_EQ(target->account().mapped_bytes, source->account().record_bytes);
  // Smaller records would take memory that the mapped ones do not.
  const SequenceId chosen[] = {1};
  EXPECT_EQ(target->shrink(chosen, {0, 2}, Runner{}), Status::kFull);
  EXPECT_EQ(target->account().mapped_bytes, source->account().record_bytes);
  ASSERT_EQ(target->drop(1), Status::kOk);
  EXPECT_EQ(target->account().mapped_bytes, 0u);
}

TEST(SequenceSession, MemoryLimit_RefusesACopyAndLeavesNothing) {
  const SequenceModel model;
  const auto source = model.make_cache(small_config(), kLimits);
  Text text;
  append(model, *source, 0, text, 1200, 100);
  const auto session = open_bytes(sent(*source, 0, text));
  const auto target = model.make_cache(small_config(), {4, 4000, 20000});
  EXPECT_EQ(load(session.value(), *target, 0, Session::Records::kCopied), SessionStatus::kOutOfMemory);
  EXPECT_EQ(target->length(0), 0u);
  EXPECT_EQ(target->account().record_bytes + target->account().row_bytes, 0u);
}

TEST(SequenceSession, CacheOfAnotherShape_IsRefusedAndLeftEmpty) {
  const SequenceModel model;
  const auto source = model.make_cache(small_config(), kLimits);
  Text text;
  append(model, *source, 0, text, 200, 20);
  const auto session = open_bytes(sent(*source, 0, text));
  const auto status_of = [&](const SequenceModel& other, const CacheConfig& config, SequenceLimits limits) {
    const auto target = other.make_cache(config, limits);
    const SessionStatus status = load(session.value(), *target, 0, Session::Records::kCopied);
    EXPECT_EQ(target->length(0), status == SessionStatus::kOk ? text.size() : 0u);
    return status;
  };
  EXPECT_EQ(status_of({.layers = 3}, small_config(), kLimits), SessionStatus::kOtherShape);
  EXPECT_EQ(status_of({.layers = 2, .heads = {8, 2, 32, 32}}, small_config(), kLimits), SessionStatus::kOtherShape);
  EXPECT_EQ(status_of(model, small_config("k4v2"), kLimits), SessionStatus::kOtherShape);
  EXPECT_EQ(status_of(model, small_config("k4v4+bytes"), kLimits), SessionStatus::kOtherShape);
  EXPECT_EQ(status_of(model, small_config(), {4, 150, MemoryLimit::kNone}), SessionStatus::kTooFewCells);
  CacheConfig sink = small_config();
  sink.sink_tokens = 32;  // a record would lie in the sink
  EXPECT_EQ(status_of(model, sink, kLimits), SessionStatus::kOtherShape);
  sink.sink_tokens = 0;  // exact rows before records
  EXPECT_EQ(status_of(model, sink, kLimits), SessionStatus::kOtherShape);
  CacheConfig tail = small_config();
  tail.tail_tokens = 64;
  EXPECT_EQ(status_of(model, tail, kLimits), SessionStatus::kOk);
  tail.tail_tokens = 0;
  EXPECT_EQ(status_of(model, tail, kLimits), SessionStatus::kOk);
}

class SequenceSessionFile : public SessionFiles {};

TEST_F(SequenceSessionFile, LongerVersion_WritesNewTilesAlone) {
  const SequenceModel model;
  const std::string path = file("append.kvarn");
  const auto cache = model.make_cache(small_config(), kLimits);
  Text text;
  append(model, *cache, 0, text, 2000, 50);
  const auto first = save(*cache, 0, text, path);
  ASSERT_TRUE(first.ok());
  EXPECT_TRUE(first.value().is_whole);
  const auto again = save(*cache, 0, text, path);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again.value().new_tiles, 0u);
  append(model, *cache, 0, text, 64, 16);
  const auto second = save(*cache, 0, text, path);
  ASSERT_TRUE(second.ok());
  EXPECT_FALSE(second.value().is_whole);
  // Four new tiles, four that were sealed meanwhile, and the one in between.
  EXPECT_LE(second.value().new_tiles, 9u);
  EXPECT_LT(second.value().written_bytes, first.value().written_bytes / 5);
  // A fork that was cut shares all but its end.
  ASSERT_EQ(cache->fork(0, 1), Status::kOk);
  ASSERT_EQ(cache->truncate(1, 1500), Status::kOk);
  const auto fork = save(*cache, 1, Text(text.begin(), text.begin() + 1500), path);
  ASSERT_TRUE(fork.ok());
  EXPECT_LE(fork.value().new_tiles, 1u);
  const auto session = Session::open(path.c_str());
  ASSERT_TRUE(session.ok());
  EXPECT_EQ(session.value().verify(), SessionStatus::kOk);
  EXPECT_EQ(session.value().index().commit, 4u);
}

TEST_F(SequenceSessionFile, CacheMappedFromAFile_SavesToThatFile) {
  const SequenceModel model;
  const std::string path = file("resumed.kvarn");
  const auto source = model.make_cache(small_config(), kLimits);
  Text text;
  append(model, *source, 0, text, 300, 30);
  ASSERT_TRUE(save(*source, 0, text, path).ok());
  const auto target = model.make_cache(small_config(), kLimits);
  ASSERT_EQ(load(Session::open(path.c_str()).value(), *target, 0, Session::Records::kMapped), SessionStatus::kOk);
  append(model, *target, 0, text, 40, 8);
  const auto saved = save(*target, 0, text, path);
  ASSERT_TRUE(saved.ok());
  EXPECT_FALSE(saved.value().is_whole);
  EXPECT_LE(saved.value().new_tiles, 7u);
  const auto third = model.make_cache(small_config(), kLimits);
  ASSERT_EQ(load(Session::open(path.c_str()).value(), *third, 0, Session::Records::kMapped), SessionStatus::kOk);
  EXPECT_TRUE(go_on(model, *third, 0, text, 30) == go_on(model, *target, 0, text, 30));
}

TEST_F(SequenceSessionFile, TilesOfOtherWidths_GiveTheFileANewVersion) {
  const SequenceModel model;
  const std::string path = file("ladder.kvarn");
  const auto cache = model.make_cache(small_config(), kLimits);
  Text text;
  append(model, *cache, 0, text, 300, 30);
  ASSERT_TRUE(save(*cache, 0, text, path).ok());
  const SequenceId chosen[] = {0};
  (void)cache->shrink(chosen, {cache->account().record_bytes + cache->account().row_bytes - 2000, 2}, Runner{});
  const auto mixed = save(*cache, 0, text, path);
  ASSERT_TRUE(mixed.ok());
  EXPECT_TRUE(mixed.value().is_whole);
  append(model, *cache, 0, text, 20, 10);
  const auto later = save(*cache, 0, text, path);
  ASSERT_TRUE(later.ok());
  EXPECT_FALSE(later.value().is_whole);
  const auto session = Session::open(path.c_str());
  ASSERT_TRUE(session.ok());
  EXPECT_EQ(session.value().version(), kMixedWidthsVersion);
  EXPECT_EQ(session.value().verify(), SessionStatus::kOk);
}

// A mapped record is looked at by whoever reads it first, and by nobody else.
TEST(SequenceSession, DamagedMappedRecord_IsRefusedByEveryReader) {
  const SequenceModel model;
  const auto source = model.make_cache(small_config(), kLimits);
  Text text;
  append(model, *source, 0, text, 200, 20);
  std::vector<std::uint8_t> bytes = sent(*source, 0, text);
  {
    const auto session = open_bytes(bytes);
    const auto tiles = session.value().tiles(0);
    for (const SessionTile::Item& item : tiles.value()[2].items) {
      if (item.entry.kind != static_cast<std::uint16_t>(ItemKind::kRecords) || item.entry.store != 0) continue;
      bytes[static_cast<std::size_t>(item.bytes.data() - session.value().bytes().data()) + 20] ^= 1;
    }
  }
  const auto session = open_bytes(bytes);
  ASSERT_TRUE(session.ok());
  EXPECT_EQ(session.value().verify(), SessionStatus::kDamagedRecord);
  const auto target = model.make_cache(small_config(), kLimits);
  EXPECT_EQ(load(session.value(), *target, 0, Session::Records::kCopied), SessionStatus::kDamagedRecord);
  ASSERT_EQ(load(session.value(), *target, 0, Session::Records::kMapped), SessionStatus::kOk);

  std::vector<HalfBits> rows(text.size() * model.row_values(Side::kKey));
  const StridedRows<HalfBits> to{rows.data(), model.row_values(Side::kKey), model.heads.dim_k};
  EXPECT_EQ(target->read_rows(0, 0, Side::kKey, 0, 200, to), Status::kCorrupt);
  EXPECT_EQ(target->read_rows(0, 0, Side::kKey, 48, 100, to), Status::kOk);  // tile 3 on
  EXPECT_EQ(target->read_rows(0, 1, Side::kKey, 0, 200, to), Status::kOk);

  const StepPart part{0, 1};
  ASSERT_EQ(target->begin({&part, 1}), Status::kOk);
  const auto k = model.rows({{0, text, {7}}}, Side::kKey, 0);
  const auto v = model.rows({{0, text, {7}}}, Side::kValue, 0);
  const auto q = model.queries({{0, text, {7}}}, 0);
  std::vector<float> out(model.out_values(), -7.0f);
  ASSERT_EQ(target->append<HalfBits>(0, {k.data(), k.size(), model.heads.dim_k},
                                     {v.data(), v.size(), model.heads.dim_v}, Runner{}),
            Status::kOk);
  const auto attend = [&](std::uint32_t window) {
    QueryParams params;
    params.window_tokens = window;
    return target->attend(0, params, {q.data(), q.size(), model.heads.dim_k},
                          {out.data(), out.size(), model.heads.dim_v}, Runner{});
  };
  EXPECT_EQ(attend(0), Status::kCorrupt);
  EXPECT_EQ(out, std::vector<float>(model.out_values(), -7.0f));
  EXPECT_EQ(attend(100), Status::kOk);  // the window does not reach it
  target->cancel();

  ASSERT_EQ(target->truncate(0, 40), Status::kOk);  // inside the damaged tile
  EXPECT_EQ(target->begin({&part, 1}), Status::kCorrupt);
  const SequenceContent cut(*target, 0, Text(text.begin(), text.begin() + 40));
  EXPECT_EQ(send_session(cut.content, {nullptr, [](void*, const std::uint8_t*, std::size_t) { return true; }}).status(),
            SessionStatus::kDamagedRecord);
  ASSERT_EQ(target->truncate(0, 32), Status::kOk);
  EXPECT_EQ(target->begin({&part, 1}), Status::kOk);
}

TEST(SequenceSession, ErrorAgainstExactRows_IsThatOfTheRowsReadBack) {
  const SequenceModel model;
  Text text, exact_text;
  const auto cache = model.make_cache(small_config("k4v2"), kLimits);
  const auto exact = model.make_cache(small_config("f16"), kLimits);
  append(model, *cache, 0, text, 200, 20);
  append(model, *exact, 0, exact_text, 200, 20);
  model.extend(*exact, 0, exact_text, text_of(5, 1));  // what one of them has alone does not count
  const auto session = open_bytes(sent(*cache, 0, text));
  const auto source = open_bytes(sent(*exact, 0, exact_text));
  const auto errors = compare_sessions(session.value(), source.value(), 0);
  ASSERT_TRUE(errors.ok()) << session_status_text(errors.status());
  ASSERT_EQ(errors.value().size(), 2 * model.layers);
  for (const StoreError& error : errors.value()) {
    const auto rows = model.read(*cache, 0, error.shape.layer, error.shape.side);
    const auto written = model.read(*exact, 0, error.shape.layer, error.shape.side);
    double difference = 0.0, size = 0.0;
    for (std::size_t at = kSink * error.shape.row_values; at < (kSink + error.tokens) * error.shape.row_values; ++at) {
      const double value = half_to_float(written[at]);
      difference += (half_to_float(rows[at]) - value) * (half_to_float(rows[at]) - value);
      size += value * value;
    }
    EXPECT_EQ(error.tokens, 8u * kTile);
    EXPECT_NEAR(error.relative, std::sqrt(difference / size), 1e-12);
    EXPECT_GT(error.relative, error.shape.side == Side::kKey ? 0.05 : 0.2);  // n(0, 1) at 4 and at 2 bits
    EXPECT_LT(error.relative, error.shape.side == Side::kKey ? 0.2 : 0.6);
  }
  const auto same = compare_sessions(session.value(), session.value(), 0);
  for (const StoreError& error : same.value()) EXPECT_EQ(error.relative, 0.0);
  const auto other = model.make_cache(small_config(), kLimits);
  Text other_text;
  model.extend(*other, 0, other_text, text_of(40, 9));
  const auto stranger = open_bytes(sent(*other, 0, other_text));
  EXPECT_EQ(compare_sessions(session.value(), stranger.value(), 0).status(), SessionStatus::kOtherShape);
}

// An engine that speaks in cells and a program that knows its sequences read each other's files.
TEST(SequenceSession, OtherKindOfCache_TakesTheSequenceAndGivesItBack) {
  const SequenceModel model;
  const auto source = model.make_cache(small_config(), kLimits);
  Text text;
  append(model, *source, 0, text, 203, 1);
  const auto session = open_bytes(sent(*source, 0, text));
  ASSERT_TRUE(session.ok());
  KvCache cells(small_config(), 1, 256);
  model.add_stores(cells);
  std::vector<std::uint32_t> numbers(text.size());
  std::iota(numbers.begin(), numbers.end(), 11u);
  ASSERT_EQ(session.value().load(0, cells, 0, numbers, Session::Records::kCopied), SessionStatus::kOk);
  std::vector<SessionToken> tokens = session_tokens(text);
  for (std::uint32_t at = 0; at < tokens.size(); ++at) tokens[at].cell = numbers[at];
  const SessionPart part{&cells, 0, tokens};
  std::vector<std::uint8_t> bytes;
  ASSERT_TRUE(send_session({{&part, 1}, {}, {}}, {&bytes,
                                                  [](void* context, const std::uint8_t* data, std::size_t size) {
                                                    auto& all = *static_cast<std::vector<std::uint8_t>*>(context);
                                                    all.insert(all.end(), data, data + size);
                                                    return true;
                                                  }})
                  .ok());
  const auto back = open_bytes(bytes);
  ASSERT_TRUE(back.ok());
  const auto target = model.make_cache(small_config(), kLimits);
  ASSERT_EQ(load(back.value(), *target, 0, Session::Records::kMapped), SessionStatus::kOk);
  EXPECT_TRUE(go_on(model, *target, 0, text, 60) == go_on(model, *source, 0, text, 60));
}

}  // namespace
}  // namespace kvarn
