// Normal draws of many consecutive blocks at once, for the instruction set that a file is compiled for.
#pragma once
#ifdef __SSE2__
#include <immintrin.h>
#endif

#include "../lanes.h"
#include "../philox.h"
#include "box_muller.h"

namespace pygen::PYGEN_ISA {
namespace {

// Blocks of four draws per call: a multiple of what any vector takes, and their draws (1 KB in float32) stay in the
// first-level cache.
constexpr int kWidth = 64, kDraws = 4 * kWidth;

// A word of each block; element i is block i's.
struct alignas(kVectorBytes) BlockWords {
  uint32_t x[4][kWidth];
};

using Wide = Vector<uint64_t>::Lanes;

// Products of the low halves, the one multiplication of words that every instruction set has.
inline __attribute__((always_inline)) void multiply(const Wide& a, const Wide& b, Wide& product) {
#if defined(__AVX512F__)
  product = (Wide)_mm512_maskz_mul_epu32(0xFF, (__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  product = (Wide)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
  product = (Wide)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
  product = (a & 0xFFFFFFFF) * b;
#endif
}

// The words of `philox`. A word lies in the low half of a 64-bit lane and whatever is above it is ignored: a product's
// two words then need no shuffling. Vectors 2 i and 2 i + 1 hold the even and the odd ones of the same blocks, so that
// their words are put together by a shift.
void words(State state, uint64_t first, uint32_t stream, BlockWords& out) {
  constexpr int kLanes = Vector<uint64_t>::kLanes,
                kVectors = kRegisters / 8;  // with their words, half of the registers
  Wide even;
  for (int i = 0; i < kLanes; ++i) even[i] = 2 * i;
  const Wide m0 = Wide{} + kMultiplier0, m1 = Wide{} + kMultiplier1;
  for (int begin = 0; begin < kWidth; begin += kVectors * kLanes) {
    Wide c[4][kVectors];
    for (int v = 0; v < kVectors; ++v) {
      c[0][v] = even + (state.offset + first + begin + v / 2 * 2 * kLanes + v % 2);
      c[1][v] = c[0][v] >> 32;
      c[2][v] = Wide{} + stream;
      c[3][v] = Wide{};
    }
    Wide k0 = Wide{} + state.seed, k1 = Wide{} + (state.seed >> 32);
    for (int round = 0; round < 10; ++round) {
      for (int v = 0; v < kVectors; ++v) {
        Wide p0, p1;
        multiply(c[0][v], m0, p0);
        multiply(c[2][v], m1, p1);
        c[0][v] = (p1 >> 32) ^ c[1][v] ^ k0;
        c[1][v] = p1;
        c[2][v] = (p0 >> 32) ^ c[3][v] ^ k1;
        c[3][v] = p0;
      }
      k0 += kWeyl0;
      k1 += kWeyl1;
    }
    for (int word = 0; word < 4; ++word) {
      for (int v = 0; v < kVectors; v += 2) {
        const Wide both = (c[word][v] & 0xFFFFFFFF) | (c[word][v + 1] << 32);
        std::memcpy(out.x[word] + begin + v * kLanes, &both, sizeof both);
      }
    }
  }
}

template <class T>
struct Draws {
  T lane[4][kWidth];
};

void draw(State state, uint64_t first, Draws<float>& out) {
  BlockWords x;
  words(state, first, kNormalStream, x);
  for (int pair = 0; pair < 4; pair += 2) {
    for (int i = 0; i < kWidth; ++i) {
      const NormalPair<float> draws = box_muller(x.x[pair][i], x.x[pair + 1][i]);
      out.lane[pair][i] = draws.cosine;
      out.lane[pair + 1][i] = draws.sine;
    }
  }
}

void draw(State state, uint64_t first, Draws<double>& out) {
  BlockWords x, y;
  words(state, first, kNormalStream, x);
  words(state, first, kNormalStream + kLowDigits, y);
  for (int pair = 0; pair < 4; pair += 2) {
    for (int i = 0; i < kWidth; ++i) {
      const NormalPair<double> draws = box_muller(x.x[pair][i], x.x[pair + 1][i], y.x[pair][i], y.x[pair + 1][i]);
      out.lane[pair][i] = draws.cosine;
      out.lane[pair + 1][i] = draws.sine;
    }
  }
}

// In their order: [kDraws].
template <class T>
void interleave(const Draws<T>& draws, T* __restrict__ out) {
  for (int i = 0; i < kWidth; ++i)
    for (int lane = 0; lane < 4; ++lane) out[4 * i + lane] = draws.lane[lane][i];
}

}  // namespace
}  // namespace pygen::PYGEN_ISA
