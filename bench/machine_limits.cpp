#include "machine_limits.hpp"

#include <algorithm>

namespace kvarn::bench {
namespace {

constexpr std::size_t kWordsAtOnce = 64;           // what sum_words takes
constexpr std::size_t kLeastWords = 2048;          // of one part: 16 KiB, so that starting a part costs nothing
constexpr std::size_t kPartsPerWorker = 8;         // so that a late thread does not hold up the others
constexpr std::size_t kPartsPerWorkerAndDots = 4;  // the same for dot products

}  // namespace

PlainRead::PlainRead(const LimitKernels& kernels, std::size_t bytes, std::uint32_t copies, const Runner& runner)
    : kernels_(kernels),
      runner_(runner),
      words_((bytes / sizeof(std::uint64_t) + kWordsAtOnce - 1) / kWordsAtOnce * kWordsAtOnce),
      copies_(copies),
      memory_(words_ * copies, 1) {}

void PlainRead::run() {
  const std::uint64_t* words = &memory_[words_ * next_];
  next_ = (next_ + 1) % copies_;
  const std::size_t wanted = std::max(kLeastWords, words_ / (runner_.workers * kPartsPerWorker));
  const std::size_t part_words = (wanted + kWordsAtOnce - 1) / kWordsAtOnce * kWordsAtOnce;
  parallel_for(runner_, (words_ + part_words - 1) / part_words, [&](std::size_t part, unsigned) {
    const std::size_t first = part * part_words;
    total_ += kernels_.sum_words(words + first, std::min(part_words, words_ - first));
  });
}

void DotRate::run() {
  parallel_for(runner_, runner_.workers * kPartsPerWorkerAndDots,
               [&](std::size_t, unsigned) { total_ += kernels_.multiply(kSteps / kPartsPerWorkerAndDots); });
}

double DotRate::multiplications() const {
  const std::size_t parts = runner_.workers * kPartsPerWorkerAndDots;
  const std::size_t steps = kSteps / kPartsPerWorkerAndDots * parts;
  return static_cast<double>(steps * kernels_.multiplications_per_step);
}

}  // namespace kvarn::bench
