#include "results_file.hpp"

#include <array>
#include <cstdio>
#include <fstream>
#include <memory>
#include <thread>
#include <utility>

#include "kernels/kernel_table.hpp"
#include "user_error.hpp"

namespace kvarn::bench {
namespace {

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

// Asked when the program runs: a build tree outlives many commits.
std::string commit() {
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> git(
      popen("git -C '" KVARN_SOURCE_DIR "' rev-parse --short HEAD 2>/dev/null", "r"), pclose);
  std::array<char, 64> line{};
  if (git == nullptr || std::fgets(line.data(), line.size(), git.get()) == nullptr) return "unknown";
  const std::string text(line.data());
  return text.substr(0, text.find('\n'));
}

}  // namespace

Json describe_machine(const std::string& command, int threads) {
  return {{"cpu", processor_name()}, {"cores", std::thread::hardware_concurrency()},
          {"commit", commit()},      {"command", command},
          {"isa", kernels().name},   {"threads", threads}};
}

ResultsFile::ResultsFile(std::string path, Json machine)
    : path_(std::move(path)), content_{{"machine", std::move(machine)}, {"results", Json::array()}} {
  write();
}

void ResultsFile::add(Json result) {
  content_["results"].push_back(std::move(result));
  write();
}

void ResultsFile::write() const {
  if (path_.empty()) return;
  std::ofstream file(path_);
  file << content_.dump(1) << '\n';
  file.close();
  if (!file) throw program::UserError("cannot write '" + path_ + "'", "give --json a path that can be written");
}

}  // namespace kvarn::bench
