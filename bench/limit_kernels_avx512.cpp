// Limits with AVX-512 VNNI: an integer dot product is one vpdpbusd.
#include <immintrin.h>

#include "limit_kernels.hpp"
#include "sum_words-inl.hpp"

namespace kvarn::bench {
namespace {

constexpr std::size_t kSums = 12;  // latency 5 at up to two instructions a cycle

std::int32_t multiply(std::size_t steps) {
  __m512i sums[kSums];
  for (__m512i& sum : sums) sum = _mm512_setzero_si512();
  __m512i codes = _mm512_set1_epi8(3);
  const __m512i query = _mm512_set1_epi8(-2);
  for (std::size_t step = 0; step < steps; ++step) {
    for (__m512i& sum : sums) {
      asm volatile("" : "+v"(codes));  // the operand may have changed: nothing is computed once for all
      sum = _mm512_dpbusd_epi32(sum, codes, query);
    }
  }
  for (const __m512i& sum : sums) sums[0] = _mm512_xor_si512(sums[0], _mm512_add_epi32(sum, codes));
  std::int32_t lanes[16];
  _mm512_storeu_si512(lanes, sums[0]);
  return lanes[0];
}

}  // namespace

const LimitKernels kAvx512Limits{"avx512-vnni", sum_words, multiply, kSums * 64};

}  // namespace kvarn::bench
