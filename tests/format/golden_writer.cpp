// kvarn_golden DIRECTORY: writes the golden vectors. Run it when the format gets a new version, never to make a test
// pass.
#include <cstdio>
#include <string>

#include "golden_set.hpp"

namespace {

bool write_file(const std::string& path, const std::vector<std::uint8_t>& bytes) {
  std::FILE* file = std::fopen(path.c_str(), "wb");
  if (file == nullptr) return false;
  const bool written = std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size();
  return std::fclose(file) == 0 && written;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: kvarn_golden DIRECTORY\n");
    return 2;
  }
  std::size_t total_bytes = 0;
  for (const kvarn::testing::GoldenFile& file : kvarn::testing::golden_files()) {
    const std::string path = std::string(argv[1]) + "/" + file.name;
    if (!write_file(path, file.bytes)) {
      std::fprintf(stderr, "kvarn_golden: cannot write %s\n", path.c_str());
      return 1;
    }
    total_bytes += file.bytes.size();
  }
  std::printf("%zu bytes\n", total_bytes);
  return 0;
}
