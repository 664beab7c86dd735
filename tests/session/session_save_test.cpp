// Saving to files: what is written, what survives a save that breaks off anywhere, what is refused; and streams.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <cstring>
#include <random>
#include <string>

#include "session_fixture.hpp"
#include "synthetic_cache.hpp"

namespace kvarn {
namespace {

constexpr auto kOff = FakeEngine::Check::kOff;

// The session in a file holds the sequence of an engine, whole and intact.
void expect_holds(const std::string& path, FakeEngine& engine, int sequence = 0) {
  const auto session = Session::open(path.c_str());
  ASSERT_TRUE(session.ok()) << session_status_text(session.status());
  ASSERT_EQ(session.value().verify(), SessionStatus::kOk);
  FakeEngine loaded(engine.cache().config(), kCells, 99);
  ASSERT_EQ(load(session.value(), loaded, sequence, Session::Records::kMapped), SessionStatus::kOk);
  ASSERT_EQ(loaded.length(sequence), engine.length(sequence));
  expect_same_sequence(loaded, engine, sequence);
}

using SessionSave = SessionFiles;

TEST_F(SessionSave, NewFile_IsTheBytesThatAreSent) {
  FakeEngine engine(small_tiles("k4v4"), kCells, 1);
  append_singly(engine, 0, 150);
  const std::string path = file("new");
  const auto report = save(engine, 0, path, {.sync = true});
  ASSERT_TRUE(report.ok()) << session_status_text(report.status());
  EXPECT_EQ(report.value().commit, 1u);
  EXPECT_TRUE(report.value().is_whole);
  EXPECT_EQ(report.value().written_bytes, size_of(path));
  EXPECT_EQ(report.value().live_bytes, size_of(path));
  EXPECT_TRUE(bytes_of(path) == sent_bytes(engine, 0));
  EXPECT_EQ(size_of(path + ".partial"), 0u);
}

TEST_F(SessionSave, LongerSequence_IsAppended) {
  FakeEngine engine(small_tiles("k4v4"), kCells, 2);
  const std::string path = file("grows");
  append_singly(engine, 0, 300);
  ASSERT_TRUE(save(engine, 0, path).ok());
  const std::vector<std::uint8_t> before = bytes_of(path);
  append_singly(engine, 0, 40);
  const auto report = save(engine, 0, path, {.sync = true});
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report.value().commit, 2u);
  EXPECT_FALSE(report.value().is_whole);
  const std::vector<std::uint8_t> after = bytes_of(path);
  EXPECT_EQ(after.size(), before.size() + report.value().written_bytes);
  EXPECT_TRUE(std::equal(before.begin(), before.end(), after.begin()));
  EXPECT_LT(report.value().written_bytes, before.size() / 2);
  expect_holds(path, engine);
}

TEST_F(SessionSave, UnchangedSequence_WritesAnIndexAlone) {
  FakeEngine engine(small_tiles("k4v4"), kCells, 3);
  const std::string path = file("unchanged");
  append_singly(engine, 0, 300);
  ASSERT_TRUE(save(engine, 0, path).ok());
  const auto report = save(engine, 0, path);
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report.value().new_tiles, 0u);
  EXPECT_LT(report.value().written_bytes, 1024u);
}

// 30 layers at 32,768 tokens: the index and the descriptions of new tiles stay below 64 KiB.
TEST_F(SessionSave, After256Tokens_WritesNewTilesOpenRowsAnd64KiB) {
  CacheConfig config;
  ASSERT_EQ(apply_preset("k4v4", config), Status::kOk);
  const SyntheticShape shape{.layers = 30, .kv_heads = 1, .dim = 16, .heads = 3};
  const std::string path = file("long");
  {
    SyntheticCache first(config, shape, 256, 7);
    const SessionPart part = first.part();
    ASSERT_TRUE(save_session(path.c_str(), {{&part, 1}, {}, {}}, {.sync = false}).ok());
  }
  SyntheticCache second(config, shape, 258, 7);
  const SessionPart part = second.part();
  const auto report = save_session(path.c_str(), {{&part, 1}, {}, {}}, {.sync = false});
  ASSERT_TRUE(report.ok());
  const std::uint64_t records =
      record_bytes(tile_shape(Side::kKey, 128, 16, 4)) + record_bytes(tile_shape(Side::kValue, 128, 16, 4));
  const std::uint64_t new_tiles = 2 * 30 * records;           // sealed since
  const std::uint64_t open_rows = 2 * 128 * 30 * 2 * 16 * 2;  // of the last two tiles
  EXPECT_EQ(report.value().new_tiles, 4u);
  EXPECT_LE(report.value().written_bytes, new_tiles + open_rows + 65536);
  EXPECT_GE(report.value().written_bytes, new_tiles + open_rows);
  RecordProperty("beside_content_bytes", static_cast<int>(report.value().written_bytes - new_tiles - open_rows));
}

// The cache is not told of a cut: a sealed tile that still holds rows of the tokens that are gone travels as values.
TEST_F(SessionSave, CutSequence_IsSavedWithoutWhatWasCut) {
  FakeEngine engine(small_tiles("k4v4"), kCells, 4);
  const std::string path = file("cut");
  append_singly(engine, 0, 200);
  ASSERT_TRUE(save(engine, 0, path).ok());
  engine.roll_back(0, 70);
  append_singly(engine, 0, 10);
  ASSERT_TRUE(save(engine, 0, path).ok());
  const auto session = Session::open(path.c_str());
  ASSERT_TRUE(session.ok());
  EXPECT_EQ(session.value().verify(), SessionStatus::kOk);
  FakeEngine loaded(small_tiles("k4v4"), kCells, 5);
  ASSERT_EQ(load(session.value(), loaded, 0, Session::Records::kCopied), SessionStatus::kOk);
  ASSERT_EQ(loaded.length(0), 140u);
  std::vector<HalfBits> row(FakeEngine::kRow), saved_row(FakeEngine::kRow);
  for (std::uint32_t token = 0; token < 140; ++token) {
    loaded.cache().read_row(0, 0, loaded.cells_of(0)[token], row.data());
    engine.cache().read_row(0, 0, engine.cells_of(0)[token], saved_row.data());
    ASSERT_EQ(row, saved_row) << token;
  }
  ASSERT_TRUE(loaded.append(0, 40));
  EXPECT_EQ(loaded.mismatches(), 0u);
}

TEST_F(SessionSave, File_StaysBelowTwiceItsContent) {
  FakeEngine engine(small_tiles("k4v4"), kCells, 5);
  const std::string path = file("often");
  append_singly(engine, 0, 100);
  int whole = 0;
  for (int step = 0; step < 60; ++step) {
    append_singly(engine, 0, 3);
    const auto report = save(engine, 0, path);
    ASSERT_TRUE(report.ok());
    EXPECT_EQ(report.value().commit, step + 1u);
    EXPECT_EQ(report.value().file_bytes, size_of(path));
    EXPECT_LE(size_of(path), 2 * report.value().live_bytes);
    whole += report.value().is_whole;
  }
  EXPECT_GT(whole, 1);
  EXPECT_LT(whole, 30);
  expect_holds(path, engine);
}

TEST_F(SessionSave, MappedSequence_IsSavedToItsOwnFile) {
  FakeEngine engine(small_tiles("k4v4"), kCells, 6);
  use_text(engine);
  const std::string path = file("mapped");
  append_singly(engine, 0, 200);
  ASSERT_TRUE(save(engine, 0, path).ok());
  FakeEngine mapped(small_tiles("k4v4"), kCells, 7);
  use_text(mapped);
  const auto session = Session::open(path.c_str());
  ASSERT_TRUE(session.ok());
  ASSERT_EQ(load(session.value(), mapped, 0, Session::Records::kMapped), SessionStatus::kOk);
  for (int step = 0; step < 12; ++step) {
    for (FakeEngine* one : {&engine, &mapped}) append_singly(*one, 0, 11);
    ASSERT_TRUE(save(mapped, 0, path, {.sync = false, .compact = step % 4 == 3}).ok());
    expect_holds(path, engine);
  }
  expect_same_sequence(mapped, engine);
}

TEST_F(SessionSave, FileOfAnotherKind_IsLeftAlone) {
  FakeEngine engine(small_tiles("k4v4"), kCells, 8);
  append_singly(engine, 0, 20);
  const std::string path = file("other");
  const auto letter = text_bytes("a letter to somebody, longer than any header of a session could ever be, and more");
  write_bytes(path, letter);
  EXPECT_EQ(save(engine, 0, path).status(), SessionStatus::kNotASession);
  EXPECT_EQ(size_of(path), letter.size());
  EXPECT_EQ(Session::open(path.c_str()).status(), SessionStatus::kNotASession);
  EXPECT_EQ(Session::open((path + "none").c_str()).status(), SessionStatus::kNotFound);
  write_bytes(path, {});
  EXPECT_EQ(Session::open(path.c_str()).status(), SessionStatus::kNotASession);
}

TEST_F(SessionSave, AnotherSaver_IsBusy) {
  FakeEngine engine(small_tiles("k4v4"), kCells, 9);
  append_singly(engine, 0, 20);
  const std::string path = file("busy");
  ASSERT_TRUE(save(engine, 0, path).ok());
  const int descriptor = open(path.c_str(), O_RDONLY);
  ASSERT_EQ(flock(descriptor, LOCK_EX), 0);
  EXPECT_EQ(save(engine, 0, path).status(), SessionStatus::kBusy);
  close(descriptor);
  EXPECT_TRUE(save(engine, 0, path).ok());
}

// The limit on file sizes stands for a full disk.
TEST_F(SessionSave, SaveThatFindsNoRoom_LeavesThePreviousOne) {
  FakeEngine engine(small_tiles("k4v4"), kCells, 10);
  append_singly(engine, 0, 150);
  const std::string path = file("full");
  ASSERT_TRUE(save(engine, 0, path).ok());
  const std::uint64_t before = size_of(path);
  FakeEngine longer(small_tiles("k4v4"), kCells, 10);
  append_singly(longer, 0, 190);
  rlimit old_limit{};
  getrlimit(RLIMIT_FSIZE, &old_limit);
  const auto old_handler = signal(SIGXFSZ, SIG_IGN);
  for (const bool compact : {false, true}) {
    const rlimit limit{compact ? before / 2 : before + 500, old_limit.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
    const auto report = save(longer, 0, path, {.sync = false, .compact = compact});
    setrlimit(RLIMIT_FSIZE, &old_limit);
    EXPECT_EQ(report.status(), SessionStatus::kWriteFailed);
    EXPECT_EQ(size_of(path), before);
    expect_holds(path, engine);
  }
  signal(SIGXFSZ, old_handler);
  EXPECT_EQ(save(longer, 0, file("no/such/directory")).status(), SessionStatus::kWriteFailed);
}

// A save that broke off after any number of bytes leaves the previous version, and the next save goes on from there.
TEST_F(SessionSave, CutAtEveryByteOfTheLastCommit_ThePreviousOneIsThere) {
  FakeEngine first(small_tiles("k4v4"), kCells, 11);
  FakeEngine second(small_tiles("k4v4"), kCells, 11);
  append_singly(first, 0, 70);
  append_singly(second, 0, 90);
  const std::string path = file("torn");
  ASSERT_TRUE(save(first, 0, path).ok());
  const std::size_t start = size_of(path);
  ASSERT_TRUE(save(second, 0, path).ok());
  const std::vector<std::uint8_t> whole = bytes_of(path);
  for (std::size_t size = start; size < whole.size(); ++size) {
    const auto session = open_bytes({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)});
    ASSERT_TRUE(session.ok()) << size;
    ASSERT_EQ(session.value().index().commit, 1u) << size;
    ASSERT_EQ(session.value().end(), start);
    if (size % 97 == 0) {
      ASSERT_EQ(session.value().verify(), SessionStatus::kOk) << size;
    }
  }
  for (std::size_t size = start; size < whole.size();
       size += 64) {  // the length made it to the disk, the bytes did not
    std::vector<std::uint8_t> holes = whole;
    std::fill(holes.begin() + static_cast<std::ptrdiff_t>(size), holes.end(), 0);
    const auto session = open_bytes(holes);
    ASSERT_TRUE(session.ok()) << size;
    ASSERT_EQ(session.value().index().commit, 1u) << size;
  }
  for (const std::size_t size : {start + 1, (start + whole.size()) / 2, whole.size() - 1}) {
    write_bytes(path, std::span(whole).first(size));
    expect_holds(path, first);
    ASSERT_TRUE(save(second, 0, path).ok());
    EXPECT_TRUE(bytes_of(path) == whole);
  }
}

// A process that saves two versions in turn, appending and rewriting, is killed at random times.
TEST_F(SessionSave, KilledAtARandomMoment_TheFileHoldsOneOfTheVersions) {
  constexpr int kKills = 1000;
  FakeEngine versions[] = {{small_tiles("k4v4"), kCells, 12}, {small_tiles("k4v4"), kCells, 12}};
  append_singly(versions[0], 0, 150);
  append_singly(versions[1], 0, 190);
  const std::string path = file("killed");
  ASSERT_TRUE(save(versions[0], 0, path).ok());
  std::mt19937 random(20240611);
  int seen[2] = {};
  int torn = 0;
  for (int kill_number = 0; kill_number < kKills; ++kill_number) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      for (int step = 1;; ++step) (void)save(versions[step % 2], 0, path);
    }
    usleep(static_cast<useconds_t>(500 + random() % 4000));
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    const auto session = Session::open(path.c_str());
    ASSERT_TRUE(session.ok()) << kill_number << ": " << session_status_text(session.status());
    ASSERT_EQ(session.value().verify(), SessionStatus::kOk) << kill_number;
    const std::uint64_t tokens = session.value().index().parts[0].tokens;
    ASSERT_TRUE(tokens == 150 || tokens == 190) << kill_number;
    ++seen[tokens == 190];
    torn += session.value().end() != session.value().file_bytes();
    if (kill_number % 100 == 0) expect_holds(path, versions[tokens == 190]);
  }
  RecordProperty("torn", torn);
  EXPECT_GT(seen[0], 0);
  EXPECT_GT(seen[1], 0);
}

struct Pipe {
  std::vector<std::uint8_t> bytes;
  std::size_t at = 0;
  ByteSource source() {
    return {this, [](void* context, std::uint8_t* out, std::size_t size) {
              Pipe& pipe = *static_cast<Pipe*>(context);
              const std::size_t count = std::min({size, pipe.bytes.size() - pipe.at, std::size_t{777}});
              std::copy_n(pipe.bytes.begin() + static_cast<std::ptrdiff_t>(pipe.at), count, out);
              pipe.at += count;
              return count;
            }};
  }
};

TEST(SessionStream, TwoSessionsInARow_AreReceivedOneByOne) {
  FakeEngine engine(small_tiles("k4v4"), kCells, 13);
  append_singly(engine, 0, 100);
  append_singly(engine, 1, 60);
  Pipe pipe{sent_bytes(engine, 0)};
  const std::size_t first_bytes = pipe.bytes.size();
  const std::vector<std::uint8_t> other = sent_bytes(engine, 1);
  pipe.bytes.insert(pipe.bytes.end(), other.begin(), other.end());
  const auto first = Session::receive(pipe.source(), 1 << 20);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(pipe.at, first_bytes);
  const auto second = Session::receive(pipe.source(), 1 << 20);
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(first.value().verify(), SessionStatus::kOk);
  EXPECT_EQ(first.value().index().parts[0].tokens, 100u);
  EXPECT_EQ(second.value().index().parts[0].tokens, 60u);
  EXPECT_EQ(Session::receive(pipe.source(), 1 << 20).status(), SessionStatus::kCutShort);
}

TEST(SessionStream, CutOrTooLarge_IsRefused) {
  FakeEngine engine(small_tiles("k4v4"), kCells, 14);
  append_singly(engine, 0, 100);
  const std::vector<std::uint8_t> bytes = sent_bytes(engine, 0);
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{63}, std::size_t{64}, bytes.size() / 2, bytes.size() - 1}) {
    Pipe pipe{{bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size)}};
    EXPECT_EQ(Session::receive(pipe.source(), 1 << 20).status(), SessionStatus::kCutShort) << size;
  }
  Pipe pipe{bytes};
  EXPECT_EQ(Session::receive(pipe.source(), bytes.size() - 1).status(), SessionStatus::kTooLarge);
}

TEST(SessionStream, SinkThatStops_EndsTheSending) {
  FakeEngine engine(small_tiles("k4v4"), kCells, 15);
  append_singly(engine, 0, 100);
  const EngineContent one(engine, 0);
  int calls = 5;
  const ByteSink sink{
      &calls, [](void* context, const std::uint8_t*, std::size_t) { return --*static_cast<int*>(context) > 0; }};
  EXPECT_EQ(send_session(one.content, sink).status(), SessionStatus::kWriteFailed);
  EXPECT_EQ(calls, 0);
}

}  // namespace
}  // namespace kvarn
