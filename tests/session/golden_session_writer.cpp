// kvarn_golden_sessions DIRECTORY: writes the golden sessions. Run it when the format gets a new version or the level
// `best` other codes, never to make a test pass.
#include <cstdio>

#include "golden_session.hpp"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: kvarn_golden_sessions DIRECTORY\n");
    return 2;
  }
  const std::string directory = std::string(argv[1]) + "/";
  for (const kvarn::testing::GoldenSession& session : kvarn::testing::golden_sessions(directory + "scratch")) {
    std::FILE* file = std::fopen((directory + session.name).c_str(), "wb");
    const bool written =
        file != nullptr && std::fwrite(session.bytes.data(), 1, session.bytes.size(), file) == session.bytes.size();
    if (file == nullptr || std::fclose(file) != 0 || !written) {
      std::fprintf(stderr, "kvarn_golden_sessions: cannot write %s\n", session.name.c_str());
      return 1;
    }
    std::printf("%s: %zu bytes\n", session.name.c_str(), session.bytes.size());
  }
  return 0;
}
