#include "doctor_command.hpp"

#include <fmt/format.h>

#include <fstream>
#include <set>
#include <string_view>
#include <thread>

#include "byte_count.hpp"
#include "engine.hpp"
#include "ggml.h"
#include "llama.h"
#include "machine_memory.hpp"
#include "model_session.hpp"
#include "user_error.hpp"

namespace kvarn::program {
namespace {

void print_line(std::string_view subject, const std::string& finding) { fmt::print("{:<10} {}\n", subject, finding); }

// The first value of a key in a /proc file of "key : value" lines.
std::string proc_value(const char* file, std::string_view key) {
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(key)) {
      const std::size_t start = line.find_first_not_of(" \t:", key.size());
      return start == std::string::npos ? "" : line.substr(start);
    }
  }
  return "unknown";
}

std::string instruction_sets() {
#if defined(__x86_64__)
  std::string found = "x86-64";
  const auto add = [&](const char* name, int supported) { found += supported != 0 ? fmt::format(" {}", name) : ""; };
  add("avx2", __builtin_cpu_supports("avx2"));
  add("fma", __builtin_cpu_supports("fma"));
  add("avx512f", __builtin_cpu_supports("avx512f"));
  add("avx512bw", __builtin_cpu_supports("avx512bw"));
  add("avx512vnni", __builtin_cpu_supports("avx512vnni"));
  add("avx512vbmi", __builtin_cpu_supports("avx512vbmi"));
  return found;
#else
  return "baseline of this architecture";
#endif
}

// OpenMP runtimes in this process: two different ones would fight over the cores.
std::string openmp_runtimes() {
  std::set<std::string> names;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    for (const char* library : {"libgomp", "libomp", "libiomp5"}) {
      if (line.find(library) != std::string::npos) {
        names.insert(library);
      }
    }
  }
  if (names.empty()) {
    return "none: llama.cpp brings its own threads";
  }
  return names.size() == 1 ? *names.begin() : "more than one in the process: threads will fight over the cores";
}

std::string memory() {
  const ggml_kvarn::MachineMemory memory = ggml_kvarn::machine_memory();
  return fmt::format("{}, {} available", ggml_kvarn::format_byte_count(memory.total_bytes),
                     ggml_kvarn::format_byte_count(memory.available_bytes));
}

bool report_plugin(Engine& engine) {
  try {
    engine.load_plugin();
    engine.configure({});
  } catch (const UserError& error) {
    print_line("plugin", error.what());
    return false;
  }
  print_line("plugin", fmt::format("{}, device {}", Engine::plugin_file(), ggml_backend_dev_name(engine.device())));
  const std::uint64_t limit = engine.account().value_or(ggml_kvarn_account{}).limit_bytes;
  print_line("limit", limit == 0 ? "none: the cache may take all memory (--cache-limit or KVARN_LIMIT caps it)"
                                 : fmt::format("the cache may take {}", ggml_kvarn::format_byte_count(limit)));
  return true;
}

bool report_model(const std::string& file) {
  if (file.empty()) {
    return true;
  }
  try {
    const ModelSession model(file, ModelSession::Devices::kAll);
    print_line("default", fmt::format("{}, {} tokens of context", model.description(), model.trained_context_tokens()));
  } catch (const UserError& error) {
    print_line("default", error.what());
    return false;
  }
  return true;
}

}  // namespace

bool doctor(const std::string& model_file) {
  print_line("cpu", fmt::format("{}, {} threads, {}", proc_value("/proc/cpuinfo", "model name"),
                                std::thread::hardware_concurrency(), instruction_sets()));
  print_line("memory", memory());
  print_line("program", fmt::format("built with {}", __VERSION__));
  try {
    Engine engine(/*verbose=*/false);
    print_line("llama.cpp", fmt::format("{}, ggml {} ({}), libraries in {}", llama_version(), ggml_version(),
                                        ggml_commit(), Engine::library_folder()));
    const bool plugin_works = report_plugin(engine);
    print_line("openmp", openmp_runtimes());
    const bool model_works = report_model(model_file);
    print_line("run uses", plugin_works ? "the compressed cache" : "nothing: see the plugin line");
    return plugin_works && model_works;
  } catch (const UserError& error) {
    print_line("llama.cpp", error.what());
    return false;
  }
}

}  // namespace kvarn::program
