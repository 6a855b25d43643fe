// The vectors of the instruction set that a file is compiled for: everything is local to the file that includes this,
// so that no copy compiled for one instruction set is linked into code for another.
#pragma once
#include <cstring>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace pygen::PYGEN_ISA {
namespace {

#ifdef __AVX512F__
constexpr int kVectorBytes = 64, kRegisters = 32;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32, kRegisters = 16;
#else
constexpr int kVectorBytes = 16, kRegisters = 16;
#endif

template <class T>
struct Vector {
  static constexpr int kLanes = kVectorBytes / sizeof(T);
  typedef T Lanes __attribute__((vector_size(kVectorBytes)));
  // In memory: of the alignment of T. (GCC may copy by memcpy in halves, which are slow to load as a whole.)
  typedef T Unaligned __attribute__((vector_size(kVectorBytes), aligned(alignof(T)), may_alias));
  // Not by value: how a vector is returned depends on the instruction set.
  static void load(const T* from, Lanes& lanes) { lanes = *reinterpret_cast<const Unaligned*>(from); }
  static void store(const Lanes& lanes, T* to) { *reinterpret_cast<Unaligned*>(to) = lanes; }
  // Past the caches, for what is too large to be found there when it is read; `to` is aligned to a line of them, which
  // a vector must fill. `streamed` comes before another thread reads it.
#ifdef __AVX512F__
  static constexpr bool kStreams = true;
  static void stream(const Lanes& lanes, T* to) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to), reinterpret_cast<const __m512i&>(lanes));
  }
  static void streamed() { _mm_sfence(); }
#else
  static constexpr bool kStreams = false;
  static void stream(const Lanes& lanes, T* to) { store(lanes, to); }
  static void streamed() {}
#endif
  static T sum(const Lanes& lanes) {
    T parts[kLanes];
    store(lanes, parts);
    for (int half = kLanes / 2; half > 0; half /= 2)
      for (int i = 0; i < half; ++i) parts[i] += parts[half + i];
    return parts[0];
  }
};

}  // namespace
}  // namespace pygen::PYGEN_ISA
