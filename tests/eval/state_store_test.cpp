// Stored results come back whole or not at all.
#include "state_store.hpp"

#include <gtest/gtest.h>

#include <fstream>

#include "content_hash.hpp"
#include "user_error.hpp"

namespace kvarn::bench {
namespace {

class StateStoreTest : public testing::Test {
 protected:
  const std::filesystem::path folder_ =
      std::filesystem::path(testing::TempDir()) / ("state_store_" + std::to_string(getpid()));
  ~StateStoreTest() override { std::filesystem::remove_all(folder_); }
};

TEST_F(StateStoreTest, SavedResult_ComesBack) {
  const StateStore store(folder_ / "deeper");
  EXPECT_FALSE(store.load("chunk-0", "k4v4:sink=0"));
  store.save("chunk-0", "k4v4:sink=0", {{"kld", {0.25, 1e-7}}});
  EXPECT_EQ(store.load("chunk-0", "k4v4:sink=0")->at("kld")[1], 1e-7);
  EXPECT_FALSE(store.load("chunk-1", "k4v4:sink=0"));
  store.clear();
  EXPECT_FALSE(store.load("chunk-0", "k4v4:sink=0"));
}

TEST_F(StateStoreTest, HalfWrittenFile_IsNoResult) {
  const StateStore store(folder_);
  store.save("chunk-0", "f16", {{"kld", {0.25}}});
  std::ofstream(folder_ / "chunk-0.f16.json") << R"({"kld": [0.2)";
  EXPECT_FALSE(store.load("chunk-0", "f16"));
}

TEST_F(StateStoreTest, TextThatIsNotWhole_IsStored) {
  const StateStore store(folder_);
  store.save("code", "f16", {{"answers", {"\xC3"}}});
  EXPECT_TRUE(store.load("code", "f16"));
}

TEST_F(StateStoreTest, FolderThatCannotBe_IsRefused) {
  std::ofstream(folder_) << "a file";
  EXPECT_THROW(StateStore(folder_ / "below"), program::UserError);
}

TEST(ContentHash, DependsOnEveryByteOfText) {
  EXPECT_NE(ContentHash().add("ab").text(), ContentHash().add("ba").text());
  EXPECT_EQ(ContentHash().add("ab").text(), ContentHash().add("a").add("b").text());
  // FNV-1a's published value for the empty text.
  EXPECT_EQ(ContentHash().text(), "cbf29ce484222325");
}

}  // namespace
}  // namespace kvarn::bench
