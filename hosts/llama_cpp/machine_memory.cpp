#include "machine_memory.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>

namespace ggml_kvarn {
namespace {

struct CloseFile {
    void operator()(std::FILE * file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, CloseFile>;

// The first number that a line of a file has behind a key; nothing without the file, the key or a number ("max").
std::optional<uint64_t> read_number(const std::string & path, const char * format) {
    const File file(std::fopen(path.c_str(), "r"));
    char line[4096];
    unsigned long long number = 0;
    while (file != nullptr && std::fgets(line, sizeof(line), file.get()) != nullptr) {
        if (std::sscanf(line, format, &number) == 1) {
            return number;
        }
    }
    return std::nullopt;
}

// The unified hierarchy's folder of this process; empty without one.
std::string control_group() {
    const File file(std::fopen("/proc/self/cgroup", "r"));
    char line[4096];
    while (file != nullptr && std::fgets(line, sizeof(line), file.get()) != nullptr) {
        std::string text(line);
        if (text.rfind("0::", 0) == 0) {
            return "/sys/fs/cgroup" + text.substr(3, text.find('\n') - 3);
        }
    }
    return {};
}

// Pages of files that the group has read count as used there and can be dropped, as those of the machine can.
void limit_by_group(MachineMemory & memory) {
    for (std::string folder = control_group(); folder.size() > 1; folder.resize(folder.find_last_of('/'))) {
        const auto limit = read_number(folder + "/memory.max", "%llu");
        const auto used = read_number(folder + "/memory.current", "%llu");
        if (limit && used) {
            const uint64_t files = read_number(folder + "/memory.stat", "inactive_file %llu").value_or(0);
            const uint64_t kept = *used - std::min(*used, files);
            memory.available_bytes = std::min(memory.available_bytes, *limit - std::min(*limit, kept));
            memory.total_bytes = std::min(memory.total_bytes, *limit);
        }
        if (folder == "/sys/fs/cgroup") {
            return;
        }
    }
}

}  // namespace

MachineMemory machine_memory() {
    const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
    MachineMemory memory;
    memory.total_bytes = static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * page;
    const auto kib = read_number("/proc/meminfo", "MemAvailable: %llu");
    memory.available_bytes = kib ? *kib * 1024 : static_cast<uint64_t>(sysconf(_SC_AVPHYS_PAGES)) * page;
    limit_by_group(memory);
    return memory;
}

}  // namespace ggml_kvarn
