// Bytes with long runs of zeros, such as a host's state whose rows travel elsewhere, without those runs; and back, into memory
// that the system does not hand out where it stays zero.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace kvarn::program {

struct FreeMemory {
  void operator()(std::uint8_t* memory) const { std::free(memory); }
};
// Memory that begins as zeros.
struct ZeroedMemory {
  std::unique_ptr<std::uint8_t, FreeMemory> data;
  std::size_t size = 0;
  std::span<std::uint8_t> bytes() const { return {data.get(), size}; }
};
// Throws UserError if the system refuses.
ZeroedMemory zeroed_memory(std::size_t size);

std::vector<std::uint8_t> without_zero_runs(std::span<const std::uint8_t> bytes);
// Nothing if these bytes are none that without_zero_runs() makes of at most max_size bytes.
std::optional<ZeroedMemory> with_zero_runs(std::span<const std::uint8_t> packed, std::uint64_t max_size);

}  // namespace kvarn::program
