// Limits with AVX2: an integer dot product is vpmaddubsw, vpmaddwd by ones, vpaddd.
#include <immintrin.h>

#include "limit_kernels.hpp"
#include "sum_words-inl.hpp"

namespace kvarn::bench {
namespace {

constexpr std::size_t kSums = 8;  // latency 5 + 5 + 1 at two multiplications a cycle

std::int32_t multiply(std::size_t steps) {
  __m256i sums[kSums];
  for (__m256i& sum : sums) sum = _mm256_setzero_si256();
  __m256i codes = _mm256_set1_epi8(3);
  const __m256i query = _mm256_set1_epi8(-2);
  const __m256i ones = _mm256_set1_epi16(1);
  for (std::size_t step = 0; step < steps; ++step) {
    for (__m256i& sum : sums) {
      asm volatile("" : "+x"(codes));  // the operand may have changed: nothing is computed once for all
      sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(codes, query), ones));
    }
  }
  for (const __m256i& sum : sums) sums[0] = _mm256_xor_si256(sums[0], _mm256_add_epi32(sum, codes));
  return _mm256_extract_epi32(sums[0], 0);
}

}  // namespace

const LimitKernels kAvx2Limits{"avx2", sum_words, multiply, kSums * 32};

}  // namespace kvarn::bench
