// Stands for csrc/ptx.h, before which it is included: the same wrappers, in C++.
#pragma once
#define PYGEN_PTX_H

#include "cuda_bf16.h"
#include "cuda_fp16.h"

namespace pygen {

template <class T>
T* shared_memory() {
  return static_cast<T*>(simt::dynamic_shared());
}

template <class T>
T& static_shared() {
  static char object;
  return *static_cast<T*>(simt::static_shared(&object, sizeof(T), alignof(T) < 16 ? 16 : alignof(T)));
}

namespace simt_ptx {

template <int kBytes>
struct alignas(kBytes) Bytes {
  uint32_t words[kBytes / 4];
};

template <int kBytes>
void copy(void* to, const void* from, bool valid) {
  Bytes<kBytes> bytes = {};
  if (valid) bytes = *static_cast<const Bytes<kBytes>*>(from);
  *static_cast<Bytes<kBytes>*>(to) = bytes;
}

}  // namespace simt_ptx

// The copy may read and write at any time until it is waited for: the source is read here and there, the destination
// is spoilt here and written there.
template <int kBytes>
void cp_async(void* to, const void* from, bool valid = true, SIMT_SITE) {
  simt_ptx::copy<kBytes>(to, from, valid);
  simt::must_be_shared(to, kBytes, {"cp_async", file, line});
  simt_ptx::Bytes<kBytes> spoilt;
  for (uint32_t& word : spoilt.words) word = ~0u;
  *static_cast<simt_ptx::Bytes<kBytes>*>(to) = spoilt;
  simt::issue({to, from, kBytes, valid});
}

inline void cp_async_commit() { simt::commit(); }

template <int kAllowed>
void cp_async_wait() {
  for (simt::Copy due; simt::take_due(kAllowed, due);) {
    if (due.bytes == 16)
      simt_ptx::copy<16>(due.to, due.from, due.valid);
    else if (due.bytes == 8)
      simt_ptx::copy<8>(due.to, due.from, due.valid);
    else
      simt_ptx::copy<4>(due.to, due.from, due.valid);
  }
}

// Lane l gets, of 8x8 matrix j, elements 2 (l % 4) and the next of row l / 4, whose address lane 8 j + l / 4 gave;
// transposed: rows 2 (l % 4) and the next of column l / 4.
template <int kMatrices>
void ldmatrix(uint32_t (&to)[kMatrices], const void* row, SIMT_SITE) {
  const void* rows[32];
  simt::gather(row, rows, {"ldmatrix", file, line});
  for (int j = 0; j < kMatrices; ++j) {
    const void* mine = rows[8 * j + simt::coordinates.lane / 4];
    simt::must_be_shared(mine, 16, {"ldmatrix", file, line});
    to[j] = static_cast<const simt_ptx::Bytes<16>*>(mine)->words[simt::coordinates.lane % 4];
  }
}

template <int kMatrices>
void ldmatrix_transposed(uint32_t (&to)[kMatrices], const void* row, SIMT_SITE) {
  struct alignas(16) Row {
    uint16_t elements[8];
  };
  const void* rows[32];
  simt::gather(row, rows, {"ldmatrix_transposed", file, line});
  const unsigned column = simt::coordinates.lane / 4, pair = simt::coordinates.lane % 4 * 2;
  for (int j = 0; j < kMatrices; ++j) {
    const void *low = rows[8 * j + pair], *high = rows[8 * j + pair + 1];
    simt::must_be_shared(low, 16, {"ldmatrix_transposed", file, line});
    simt::must_be_shared(high, 16, {"ldmatrix_transposed", file, line});
    to[j] = static_cast<const Row*>(low)->elements[column] | uint32_t{static_cast<const Row*>(high)->elements[column]}
                                                                 << 16;
  }
}

inline void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, SIMT_SITE) {
  simt::matrix_product(simt::Multiplicand::kBFloat16, c, a, {b0, b1}, {"mma_bf16", file, line});
}
inline void mma_half(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, SIMT_SITE) {
  simt::matrix_product(simt::Multiplicand::kHalf, c, a, {b0, b1}, {"mma_half", file, line});
}
inline void mma_tf32(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, SIMT_SITE) {
  simt::matrix_product(simt::Multiplicand::kTFloat32, c, a, {b0, b1}, {"mma_tf32", file, line});
}
inline void mma_double(double (&c)[2], double a, double b, SIMT_SITE) {
  simt::matrix_product(c, a, b, {"mma_double", file, line});
}

// To nearest, ties away from zero.
inline uint32_t to_tf32(float x) {
  const uint32_t bits = __float_as_uint(x);
  return std::isfinite(x) ? (bits + 0x1000) & 0xFFFFE000u : bits;
}
inline uint32_t pack_bf16(float low, float high) { return simt::bits_of<uint32_t>(__floats2bfloat162_rn(low, high)); }
inline uint32_t pack_half(float low, float high) { return simt::bits_of<uint32_t>(__floats2half2_rn(low, high)); }

}  // namespace pygen
