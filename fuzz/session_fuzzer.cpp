// Session files made up by libFuzzer. The first byte says whether the checksums are made to fit, so that what lies
// behind them is reached. Start it with the golden sessions, each behind a byte of 1:
//
//   session_fuzzer CORPUS_DIRECTORY
//
// Anything goes but reading out of bounds, undefined arithmetic, leaks, or memory far beyond the input's size.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "reseal.hpp"
#include "session/session_summary.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  std::vector<std::uint8_t> file(data + 1, data + size);
  if ((data[0] & 1) != 0) kvarn::reseal(file);
  auto memory = kvarn::SessionBytes::allocate(file.size());
  if (memory == nullptr) return 0;
  std::copy(file.begin(), file.end(), memory->writable());
  const auto session = kvarn::Session::open(std::shared_ptr<const kvarn::SessionBytes>(std::move(memory)));
  if (!session.ok()) return 0;
  (void)kvarn::summarize(session.value());
  (void)session.value().verify();
  return 0;
}
