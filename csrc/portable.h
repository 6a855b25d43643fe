// What a kernel's arithmetic needs to be one source for nvcc, for C++ compilers and for several instruction sets of
// one.
#pragma once
#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define PYGEN_HD __host__ __device__ __forceinline__
#else
// Always inlined, so that no copy compiled for a newer instruction set is linked into code for an older one.
#define PYGEN_HD inline __attribute__((always_inline))
#endif

namespace pygen {

template <class To, class From>
PYGEN_HD To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast keeps the size");
  To to;
  memcpy(&to, &from, sizeof(To));
  return to;
}

// To 16 bytes, the most that a GPU's thread loads at once.
PYGEN_HD bool is_aligned(const void* at) { return reinterpret_cast<uintptr_t>(at) % 16 == 0; }

}  // namespace pygen
