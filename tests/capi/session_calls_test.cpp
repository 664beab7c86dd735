// Sessions of the C interface, through the shared library, as a program would use them. What a session does to a
// sequence is tested in tests/session; here it is that the calls say and do what the header promises.
#include <gtest/gtest.h>
#include <kvarn/kvarn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "small_cache.hpp"
#include "temporary_folder.hpp"

namespace {

struct CloseSession {
  void operator()(kvarn_session* session) const { kvarn_session_close(session); }
};
using Session = std::unique_ptr<kvarn_session, CloseSession>;

Cache make_cache(uint32_t tokens = 400, uint32_t bits = 4) {
  kvarn_cache_config config = small_config();
  config.k_bits = config.v_bits = bits;
  return cache_of(config, 3, tokens);
}

std::vector<kvarn_token> some_tokens(uint32_t count) {
  std::vector<kvarn_token> tokens;
  for (uint32_t at = 0; at < count; ++at) tokens.push_back({at * 7 + 1, static_cast<int32_t>(at) - 3});
  return tokens;
}

struct Content {
  Content(kvarn_cache* cache, uint32_t sequence, std::vector<kvarn_token> of)
      : tokens(std::move(of)), part{cache, sequence, tokens.empty() ? nullptr : tokens.data(), tokens.size()} {
    content.parts = &part;
    content.part_count = 1;
    content.model = {"a model", 7};
    content.metadata = {"notes", 5};
  }
  Content(const Content&) = delete;
  Content& operator=(const Content&) = delete;
  std::vector<kvarn_token> tokens;
  kvarn_session_part part;
  kvarn_session_content content = KVARN_SESSION_CONTENT_INIT;
};

class SessionCalls : public ::testing::Test {
 protected:
  ~SessionCalls() override { std::remove(path_.c_str()); }
  const char* path() const { return path_.c_str(); }
  std::vector<unsigned char> file_bytes() const {
    std::vector<unsigned char> bytes(1 << 20);
    std::FILE* file = std::fopen(path(), "rb");
    bytes.resize(std::fread(bytes.data(), 1, bytes.size(), file));
    std::fclose(file);
    return bytes;
  }
  void write_file(const std::vector<unsigned char>& bytes) const {
    std::FILE* file = std::fopen(path(), "wb");
    std::fwrite(bytes.data(), 1, bytes.size(), file);
    std::fclose(file);
  }
  Session open() const {
    kvarn_session* session = nullptr;
    EXPECT_EQ(kvarn_session_open(path(), &session), KVARN_STATUS_OK);
    return Session(session);
  }

 private:
  kvarn::testing::TemporaryFolder folder_;
  std::string path_ = folder_.file("one.kvarn");
};

TEST_F(SessionCalls, SavedFile_TellsWhatIsInIt) {
  const Cache cache = make_cache();
  (void)step(cache.get(), 0, 150, 1);
  const auto tokens = some_tokens(150);
  const Content content(cache.get(), 0, tokens);
  kvarn_save_report report = KVARN_SAVE_REPORT_INIT;
  ASSERT_EQ(kvarn_session_save(path(), &content.content, KVARN_SAVE_UNSYNCED, &report), KVARN_STATUS_OK);
  EXPECT_EQ(report.commit, 1u);
  EXPECT_EQ(report.is_whole, 1u);
  EXPECT_EQ(report.new_tiles, 10u);
  EXPECT_EQ(report.file_bytes, file_bytes().size());

  const Session session = open();
  kvarn_session_info info = KVARN_SESSION_INFO_INIT;
  ASSERT_EQ(kvarn_session_get_info(session.get(), &info), KVARN_STATUS_OK);
  EXPECT_EQ(info.version, 1u);
  EXPECT_EQ(info.part_count, 1u);
  EXPECT_EQ(info.file_bytes, report.file_bytes);
  EXPECT_EQ(std::string(static_cast<const char*>(info.model.data), info.model.bytes), "a model");
  EXPECT_EQ(std::string(static_cast<const char*>(info.metadata.data), info.metadata.bytes), "notes");
  kvarn_session_part_info part = KVARN_SESSION_PART_INFO_INIT;
  ASSERT_EQ(kvarn_session_get_part(session.get(), 0, &part), KVARN_STATUS_OK);
  EXPECT_EQ(part.tokens, 150u);
  ASSERT_EQ(part.layer_count, 2u);
  kvarn_layer layers[2];
  kvarn_cache_config config = KVARN_CACHE_CONFIG_INIT;
  ASSERT_EQ(kvarn_session_get_shape(session.get(), 0, &config, layers, 2), KVARN_STATUS_OK);
  EXPECT_EQ(std::memcmp(layers, kLayers, sizeof(layers)), 0);
  EXPECT_EQ(config.k_bits, 4u);
  EXPECT_EQ(config.sink_tokens, 16u);
  EXPECT_EQ(config.level, KVARN_LEVEL_DEFAULT);
  std::vector<kvarn_token> read(150);
  ASSERT_EQ(kvarn_session_get_tokens(session.get(), 0, read.data(), read.size()), KVARN_STATUS_OK);
  EXPECT_EQ(std::memcmp(read.data(), tokens.data(), sizeof(kvarn_token) * 150), 0);
  EXPECT_EQ(kvarn_session_verify(session.get()), KVARN_STATUS_OK);
}

// The child computes what a parent's sequence would have; the parent compares bit by bit.
TEST_F(SessionCalls, AnotherProcess_GoesOnWithTheSameBits) {
  for (const kvarn_records records : {KVARN_RECORDS_COPIED, KVARN_RECORDS_MAPPED}) {
    const Cache cache = make_cache();
    (void)step(cache.get(), 0, 150, 1);
    ASSERT_EQ(kvarn_sequence_fork(cache.get(), 0, 1), KVARN_STATUS_OK);
    (void)step(cache.get(), 1, 40, 2);
    const Content content(cache.get(), 1, {});
    ASSERT_EQ(kvarn_session_save(path(), &content.content, KVARN_SAVE_UNSYNCED, nullptr), KVARN_STATUS_OK);
    const auto expected = step(cache.get(), 1, 30, 3);

    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
      const Cache other = make_cache();
      const Session session = open();
      if (kvarn_session_load(session.get(), 0, other.get(), 2, records) != KVARN_STATUS_OK) _exit(1);
      const auto out = step(other.get(), 2, 30, 3);
      const auto bytes = static_cast<ssize_t>(out.size() * sizeof(float));
      _exit(write(ends[1], out.data(), out.size() * sizeof(float)) == bytes ? 0 : 2);
    }
    close(ends[1]);
    std::vector<float> got(expected.size());
    std::size_t filled = 0;
    while (filled < got.size() * sizeof(float)) {
      const ssize_t more =
          read(ends[0], reinterpret_cast<char*>(got.data()) + filled, got.size() * sizeof(float) - filled);
      if (more <= 0) break;
      filled += static_cast<std::size_t>(more);
    }
    close(ends[0]);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    EXPECT_EQ(std::memcmp(got.data(), expected.data(), got.size() * sizeof(float)), 0);
  }
}

TEST_F(SessionCalls, SavingAgain_AppendsAndKeepsMappedCachesGood) {
  const Cache cache = make_cache();
  (void)step(cache.get(), 0, 280, 1);
  (void)step(cache.get(), 0, 20, 2);  // seals what the first step left
  const Content first(cache.get(), 0, some_tokens(300));
  kvarn_save_report report = KVARN_SAVE_REPORT_INIT;
  ASSERT_EQ(kvarn_session_save(path(), &first.content, 0, &report), KVARN_STATUS_OK);
  const uint64_t whole = report.written_bytes;
  const Cache mapped = make_cache();
  ASSERT_EQ(kvarn_session_load(open().get(), 0, mapped.get(), 0, KVARN_RECORDS_MAPPED), KVARN_STATUS_OK);
  kvarn_cache_account account = KVARN_CACHE_ACCOUNT_INIT;
  ASSERT_EQ(kvarn_cache_get_account(mapped.get(), &account), KVARN_STATUS_OK);
  EXPECT_GT(account.mapped_bytes, 0u);
  EXPECT_EQ(account.record_bytes, 0u);
  (void)step(mapped.get(), 0, 10, 5);
  const Content second(mapped.get(), 0, some_tokens(310));
  ASSERT_EQ(kvarn_session_save(path(), &second.content, 0, &report), KVARN_STATUS_OK);
  EXPECT_EQ(report.commit, 2u);
  EXPECT_EQ(report.is_whole, 0u);
  EXPECT_LT(report.written_bytes, whole / 4);
  ASSERT_EQ(kvarn_session_save(path(), &second.content, KVARN_SAVE_COMPACT, &report), KVARN_STATUS_OK);
  EXPECT_EQ(report.is_whole, 1u);
  EXPECT_EQ(report.file_bytes, report.live_bytes);
  (void)step(cache.get(), 0, 10, 5);
  EXPECT_EQ(step(mapped.get(), 0, 20, 6), step(cache.get(), 0, 20, 6));
}

TEST_F(SessionCalls, Stream_BringsTheSameSequence) {
  const Cache cache = make_cache();
  (void)step(cache.get(), 0, 150, 1);
  const Content content(cache.get(), 0, {});
  std::vector<unsigned char> wire;
  const kvarn_sink sink{&wire, [](void* context, const void* bytes, size_t size) {
                          auto& all = *static_cast<std::vector<unsigned char>*>(context);
                          const auto* from = static_cast<const unsigned char*>(bytes);
                          all.insert(all.end(), from, from + size);
                          return KVARN_STATUS_OK;
                        }};
  uint64_t sent = 0;
  ASSERT_EQ(kvarn_session_send(&content.content, &sink, &sent), KVARN_STATUS_OK);
  EXPECT_EQ(sent, wire.size());

  struct Reader {
    const std::vector<unsigned char>& bytes;
    std::size_t at;
  };
  const auto receive = [&](std::size_t size, uint64_t max_bytes, kvarn_session** session) {
    const std::vector<unsigned char> bytes(wire.begin(), wire.begin() + static_cast<std::ptrdiff_t>(size));
    Reader reader{bytes, 0};
    const kvarn_source source{
        &reader, [](void* context, void* to, size_t most) {
          auto& own = *static_cast<Reader*>(context);
          const std::size_t count = std::min({most, own.bytes.size() - own.at, std::size_t{1000}});
          std::memcpy(to, own.bytes.data() + own.at, count);
          own.at += count;
          return count;
        }};
    return kvarn_session_receive(&source, max_bytes, session);
  };
  kvarn_session* session = nullptr;
  EXPECT_EQ(receive(wire.size(), wire.size() - 1, &session), KVARN_STATUS_TOO_LARGE);
  EXPECT_EQ(receive(wire.size() - 1, wire.size(), &session), KVARN_STATUS_CUT_SHORT);
  EXPECT_EQ(session, nullptr);
  ASSERT_EQ(receive(wire.size(), wire.size(), &session), KVARN_STATUS_OK);
  const Session received(session);
  const Cache other = make_cache();
  ASSERT_EQ(kvarn_session_load(session, 0, other.get(), 1, KVARN_RECORDS_COPIED), KVARN_STATUS_OK);
  EXPECT_EQ(step(other.get(), 1, 20, 2), step(cache.get(), 0, 20, 2));
  const kvarn_sink full{nullptr, [](void*, const void*, size_t) { return KVARN_STATUS_FULL; }};
  EXPECT_EQ(kvarn_session_send(&content.content, &full, nullptr), KVARN_STATUS_WRITE_FAILED);
}

TEST_F(SessionCalls, SeveralSequences_TravelInOneSession) {
  const Cache cache = make_cache();
  (void)step(cache.get(), 0, 100, 1);
  ASSERT_EQ(kvarn_sequence_fork(cache.get(), 0, 1), KVARN_STATUS_OK);
  (void)step(cache.get(), 1, 50, 2);
  const kvarn_session_part parts[] = {{cache.get(), 0, nullptr, 0}, {cache.get(), 1, nullptr, 0}};
  kvarn_session_content content = KVARN_SESSION_CONTENT_INIT;
  content.parts = parts;
  content.part_count = 2;
  ASSERT_EQ(kvarn_session_save(path(), &content, 0, nullptr), KVARN_STATUS_OK);
  const Session session = open();
  const Cache other = make_cache();
  ASSERT_EQ(kvarn_session_load(session.get(), 1, other.get(), 0, KVARN_RECORDS_MAPPED), KVARN_STATUS_OK);
  ASSERT_EQ(kvarn_session_load(session.get(), 0, other.get(), 1, KVARN_RECORDS_MAPPED), KVARN_STATUS_OK);
  EXPECT_EQ(step(other.get(), 0, 20, 3), step(cache.get(), 1, 20, 3));
  EXPECT_EQ(step(other.get(), 1, 20, 4), step(cache.get(), 0, 20, 4));
  EXPECT_EQ(kvarn_session_load(session.get(), 2, other.get(), 2, KVARN_RECORDS_MAPPED), KVARN_STATUS_INVALID_ARGUMENT);
}

TEST_F(SessionCalls, TilesMadeSmaller_TravelAsTheyAre) {
  const Cache cache = make_cache();
  (void)step(cache.get(), 0, 200, 1);
  (void)step(cache.get(), 0, 30, 2);
  const uint32_t sequence = 0;
  kvarn_shrink shrink = KVARN_SHRINK_INIT;
  shrink.sequences = &sequence;
  shrink.sequence_count = 1;
  ASSERT_EQ(kvarn_cache_shrink(cache.get(), &shrink, nullptr), KVARN_STATUS_FULL);
  const Content content(cache.get(), 0, {});
  ASSERT_EQ(kvarn_session_save(path(), &content.content, 0, nullptr), KVARN_STATUS_OK);
  const Session session = open();
  kvarn_session_info info = KVARN_SESSION_INFO_INIT;
  ASSERT_EQ(kvarn_session_get_info(session.get(), &info), KVARN_STATUS_OK);
  EXPECT_EQ(info.version, 2u);
  EXPECT_EQ(kvarn_session_verify(session.get()), KVARN_STATUS_OK);
  const auto expected = step(cache.get(), 0, 20, 3);
  for (const kvarn_records records : {KVARN_RECORDS_COPIED, KVARN_RECORDS_MAPPED}) {
    const Cache other = make_cache();
    ASSERT_EQ(kvarn_session_load(session.get(), 0, other.get(), 0, records), KVARN_STATUS_OK);
    EXPECT_EQ(step(other.get(), 0, 20, 3), expected);
  }
}

TEST_F(SessionCalls, FieldsOfOneByte_TravelAsTheyAre) {
  kvarn_cache_config bytes = small_config();
  bytes.fields = KVARN_FIELDS_BYTE;
  const Cache cache = cache_of(bytes, 1, 400);
  (void)step(cache.get(), 0, 200, 1);
  (void)step(cache.get(), 0, 30, 2);
  const Content content(cache.get(), 0, {});
  ASSERT_EQ(kvarn_session_save(path(), &content.content, KVARN_SAVE_UNSYNCED, nullptr), KVARN_STATUS_OK);
  const auto expected = step(cache.get(), 0, 20, 3);
  const Session session = open();
  kvarn_layer layers[2];
  kvarn_cache_config config = KVARN_CACHE_CONFIG_INIT;
  ASSERT_EQ(kvarn_session_get_shape(session.get(), 0, &config, layers, 2), KVARN_STATUS_OK);
  EXPECT_EQ(config.fields, KVARN_FIELDS_BYTE);
  for (const kvarn_records records : {KVARN_RECORDS_COPIED, KVARN_RECORDS_MAPPED}) {
    const Cache other = cache_of(config, 1, 400);
    ASSERT_EQ(kvarn_session_load(session.get(), 0, other.get(), 0, records), KVARN_STATUS_OK);
    EXPECT_EQ(step(other.get(), 0, 20, 3), expected);
  }
  const Cache halves = cache_of(small_config(), 1, 400);
  EXPECT_EQ(kvarn_session_load(session.get(), 0, halves.get(), 0, KVARN_RECORDS_COPIED), KVARN_STATUS_OTHER_SHAPE);
}

TEST_F(SessionCalls, DamageAndMisuse_HaveNames) {
  const Cache cache = make_cache();
  (void)step(cache.get(), 0, 130, 1);
  (void)step(cache.get(), 0, 20, 2);
  const Content content(cache.get(), 0, {});
  kvarn_session* session = nullptr;
  EXPECT_EQ(kvarn_session_open(path(), &session), KVARN_STATUS_NOT_FOUND);
  ASSERT_EQ(kvarn_session_save(path(), &content.content, 0, nullptr), KVARN_STATUS_OK);
  const auto bytes = file_bytes();
  const auto open_flipped = [&](std::size_t at) {
    auto damaged = bytes;
    damaged[at] ^= 4;
    write_file(damaged);
    kvarn_session* opened = nullptr;
    const kvarn_status status = kvarn_session_open(path(), &opened);
    EXPECT_EQ(opened == nullptr, status != KVARN_STATUS_OK);
    const Session closed(opened);
    return status == KVARN_STATUS_OK ? kvarn_session_verify(opened) : status;
  };
  EXPECT_EQ(open_flipped(0), KVARN_STATUS_NOT_A_SESSION);
  EXPECT_EQ(open_flipped(9), KVARN_STATUS_UNKNOWN_VERSION);
  EXPECT_EQ(open_flipped(20), KVARN_STATUS_DAMAGED_HEADER);
  EXPECT_EQ(open_flipped(bytes.size() - 30), KVARN_STATUS_NO_COMMIT);
  EXPECT_EQ(open_flipped(bytes.size() - 200), KVARN_STATUS_DAMAGED_INDEX);
  EXPECT_EQ(open_flipped(80), KVARN_STATUS_DAMAGED_TILE);
  EXPECT_EQ(kvarn_session_save(path(), &content.content, 0, nullptr), KVARN_STATUS_OK);  // its index is whole

  std::size_t in_record = 64;
  while (in_record < bytes.size() && open_flipped(in_record) != KVARN_STATUS_DAMAGED_RECORD) in_record += 100;
  ASSERT_LT(in_record, bytes.size());
  const Session opened = open();
  EXPECT_EQ(kvarn_session_verify(opened.get()), KVARN_STATUS_DAMAGED_RECORD);
  const Cache other = make_cache();
  EXPECT_EQ(kvarn_session_load(opened.get(), 0, other.get(), 0, KVARN_RECORDS_COPIED), KVARN_STATUS_DAMAGED_RECORD);
  EXPECT_EQ(kvarn_session_load(opened.get(), 0, other.get(), 0, 7), KVARN_STATUS_INVALID_ARGUMENT);
  EXPECT_EQ(kvarn_session_load(opened.get(), 0, other.get(), 3, KVARN_RECORDS_MAPPED), KVARN_STATUS_INVALID_ARGUMENT);
  EXPECT_EQ(kvarn_session_load(opened.get(), 0, cache.get(), 0, KVARN_RECORDS_MAPPED), KVARN_STATUS_INVALID_ARGUMENT);
  EXPECT_EQ(kvarn_session_load(opened.get(), 0, make_cache(100).get(), 0, KVARN_RECORDS_MAPPED), KVARN_STATUS_FULL);
  EXPECT_EQ(kvarn_session_load(opened.get(), 0, make_cache(400, 8).get(), 0, KVARN_RECORDS_MAPPED),
            KVARN_STATUS_OTHER_SHAPE);

  const kvarn_step_part part{0, 1};
  ASSERT_EQ(kvarn_step_begin(cache.get(), &part, 1), KVARN_STATUS_OK);
  EXPECT_EQ(kvarn_session_save(path(), &content.content, 0, nullptr), KVARN_STATUS_OUT_OF_ORDER);
  ASSERT_EQ(kvarn_step_cancel(cache.get()), KVARN_STATUS_OK);
  const Content wrong(cache.get(), 0, some_tokens(149));
  EXPECT_EQ(kvarn_session_save(path(), &wrong.content, 0, nullptr), KVARN_STATUS_INVALID_ARGUMENT);
  EXPECT_EQ(kvarn_session_save(path(), &content.content, 8, nullptr), KVARN_STATUS_INVALID_ARGUMENT);
  EXPECT_EQ(kvarn_session_save("/nowhere/at/all", &content.content, 0, nullptr), KVARN_STATUS_WRITE_FAILED);
  EXPECT_EQ(kvarn_session_save(nullptr, &content.content, 0, nullptr), KVARN_STATUS_INVALID_ARGUMENT);
  EXPECT_EQ(kvarn_session_get_info(nullptr, nullptr), KVARN_STATUS_INVALID_ARGUMENT);
  kvarn_session_close(nullptr);
}

TEST_F(SessionCalls, EveryStatus_HasATextOfItsOwn) {
  std::vector<std::string> texts;
  for (int status = KVARN_STATUS_OK; status <= KVARN_STATUS_CUT_SHORT; ++status) {
    texts.emplace_back(kvarn_status_text(static_cast<kvarn_status>(status)));
    EXPECT_NE(texts.back(), "unknown status") << status;
    EXPECT_EQ(std::count(texts.begin(), texts.end(), texts.back()), 1) << texts.back();
  }
  EXPECT_STREQ(kvarn_status_text(static_cast<kvarn_status>(KVARN_STATUS_CUT_SHORT + 1)), "unknown status");
}

}  // namespace
