// The golden vectors of tests/golden: made again, byte for byte the same.
#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <set>

#include "format/record_check.hpp"
#include "golden_set.hpp"
#include "sha256.hpp"

namespace kvarn::testing {
namespace {

std::vector<std::uint8_t> read_file(const std::filesystem::path& path) {
  std::vector<std::uint8_t> bytes;
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (file == nullptr) return bytes;
  for (int byte = std::fgetc(file); byte != EOF; byte = std::fgetc(file)) {
    bytes.push_back(static_cast<std::uint8_t>(byte));
  }
  std::fclose(file);
  return bytes;
}

std::string digest_of(const std::string& text) {
  return sha256_hex({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
}

// The examples of FIPS 180-4.
TEST(Sha256, PublishedExamples_GiveThePublishedDigests) {
  EXPECT_EQ(digest_of("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(digest_of(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(digest_of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

TEST(GoldenVectors, EveryFile_IsMadeAgainByteForByte) {
  for (const GoldenFile& file : golden_files()) {
    EXPECT_EQ(read_file(std::filesystem::path(KVARN_GOLDEN_DIRECTORY) / file.name), file.bytes) << file.name;
  }
}

TEST(GoldenVectors, Directory_HoldsNoOtherVectors) {
  std::set<std::string> names;
  for (const GoldenFile& file : golden_files()) names.insert(file.name);
  for (const auto& entry : std::filesystem::directory_iterator(KVARN_GOLDEN_DIRECTORY)) {
    const std::string extension = entry.path().extension().string();
    if (extension != ".rows" && extension != ".record") continue;
    EXPECT_TRUE(names.contains(entry.path().filename().string())) << entry.path();
  }
}

TEST(GoldenVectors, EveryRecord_IsValid) {
  for (const GoldenTile& tile : golden_tiles()) {
    const std::vector<std::uint8_t> record =
        read_file(std::filesystem::path(KVARN_GOLDEN_DIRECTORY) / record_name(tile));
    EXPECT_EQ(validate_record(reference::shape_of(tile.spec), record), Status::kOk) << record_name(tile);
  }
}

}  // namespace
}  // namespace kvarn::testing
