// Small whole numbers to floats: by a table in a register where the instruction set has one, else by conversion.
#pragma once

#include "simd/vector.hpp"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace kvarn {
namespace {

// The low `Bits` bits of every word as a float; the bits above are ignored.
template <int Bits>
KVARN_INLINE F32 small_to_float(U32 words) {
#if defined(__AVX512F__)
  if constexpr (Bits <= 4) {  // the lookup reads the low four bits; a table of period 2^Bits ignores the rest of them
    constexpr int m = (1 << Bits) - 1;
    const F32 table = {0,     1,     2 & m,  3 & m,  4 & m,  5 & m,  6 & m,  7 & m,
                       8 & m, 9 & m, 10 & m, 11 & m, 12 & m, 13 & m, 14 & m, 15 & m};
    return _mm512_maskz_permutexvar_ps(0xFFFF, reinterpret_cast<__m512i>(words), table);
  }
#endif
  return to_float(words & ((1u << Bits) - 1u));
}

}  // namespace
}  // namespace kvarn
