#include "zero_runs.hpp"

#include <algorithm>
#include <cstring>

#include "user_error.hpp"

namespace kvarn::program {
namespace {

// A stretch of the packed form: so many zeros, then so many bytes as they are.
struct Stretch {
  std::uint64_t zeros = 0;
  std::uint64_t literals = 0;
};
constexpr std::size_t kShortestRun = 2 * sizeof(Stretch);

std::size_t zeros_at(std::span<const std::uint8_t> bytes, std::size_t at) {
  std::size_t end = at;
  constexpr std::size_t kWord = sizeof(std::uint64_t);
  for (std::uint64_t word = 0; bytes.size() - end >= kWord; end += kWord) {
    std::memcpy(&word, bytes.data() + end, kWord);
    if (word != 0) break;
  }
  while (end < bytes.size() && bytes[end] == 0) ++end;
  return end - at;
}

}  // namespace

ZeroedMemory zeroed_memory(std::size_t size) {
  ZeroedMemory memory;
  memory.data.reset(static_cast<std::uint8_t*>(std::calloc(std::max<std::size_t>(size, 1), 1)));
  memory.size = size;
  if (memory.data == nullptr) throw UserError("no memory for the state of the context", "use a shorter context");
  return memory;
}

std::vector<std::uint8_t> without_zero_runs(std::span<const std::uint8_t> bytes) {
  std::vector<std::uint8_t> packed(sizeof(std::uint64_t));
  const std::uint64_t total = bytes.size();
  std::memcpy(packed.data(), &total, sizeof(total));
  for (std::size_t at = 0; at < bytes.size();) {
    const std::size_t zeros = zeros_at(bytes, at);
    const std::size_t first = at + zeros;
    for (at = first; at < bytes.size(); ++at) {
      if (bytes[at] == 0 && zeros_at(bytes, at) >= kShortestRun) break;
    }
    const Stretch stretch{zeros, at - first};
    const std::size_t end = packed.size();
    packed.resize(end + sizeof(stretch) + stretch.literals);
    std::memcpy(packed.data() + end, &stretch, sizeof(stretch));
    std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(first), stretch.literals,
                packed.begin() + static_cast<std::ptrdiff_t>(end + sizeof(stretch)));
  }
  return packed;
}

std::optional<ZeroedMemory> with_zero_runs(std::span<const std::uint8_t> packed, std::uint64_t max_size) {
  std::uint64_t total = 0;
  if (packed.size() < sizeof(total)) return std::nullopt;
  std::memcpy(&total, packed.data(), sizeof(total));
  packed = packed.subspan(sizeof(total));
  if (total > max_size) return std::nullopt;
  ZeroedMemory memory = zeroed_memory(total);
  for (std::uint64_t at = 0; !packed.empty();) {
    Stretch stretch;
    if (packed.size() < sizeof(stretch)) return std::nullopt;
    std::memcpy(&stretch, packed.data(), sizeof(stretch));
    packed = packed.subspan(sizeof(stretch));
    const bool fits = stretch.zeros <= total - at && stretch.literals <= total - at - stretch.zeros;
    if (!fits || stretch.literals > packed.size()) return std::nullopt;
    at += stretch.zeros;
    std::copy_n(packed.begin(), stretch.literals, memory.data.get() + at);
    at += stretch.literals;
    packed = packed.subspan(stretch.literals);
  }
  return memory;
}

}  // namespace kvarn::program
