// Normal draws on the CPU. CMake compiles this file once per instruction set, PYGEN_ISA naming the namespace; the
// loops over kWidth blocks are written for the compiler to vectorise.
#include "box_muller.h"
#include "gaussian.h"

#define PYGEN_STRING_(x) #x
#define PYGEN_STRING(x) PYGEN_STRING_(x)

namespace pygen::PYGEN_ISA {
namespace {

// Blocks of four draws per loop: a multiple of every vector's length, and its draws (1 KB in float32) stay in the
// first-level cache.
constexpr int kWidth = 64;

template <class T>
struct Draws {
  T lane[4][kWidth];
};

void draw(State state, uint64_t first, Draws<float>& out) {
  for (int i = 0; i < kWidth; ++i) {
    const Words x = philox(state, first + i, kNormalStream);
    const NormalPair<float> a = box_muller(x.x0, x.x1), b = box_muller(x.x2, x.x3);
    out.lane[0][i] = a.cosine;
    out.lane[1][i] = a.sine;
    out.lane[2][i] = b.cosine;
    out.lane[3][i] = b.sine;
  }
}

void draw(State state, uint64_t first, Draws<double>& out) {
  for (int i = 0; i < kWidth; ++i) {
    const Words x = philox(state, first + i, kNormalStream), y = philox(state, first + i, kNormalStream + kLowDigits);
    const NormalPair<double> a = box_muller(x.x0, x.x1, y.x0, y.x1), b = box_muller(x.x2, x.x3, y.x2, y.x3);
    out.lane[0][i] = a.cosine;
    out.lane[1][i] = a.sine;
    out.lane[2][i] = b.cosine;
    out.lane[3][i] = b.sine;
  }
}

template <class T>
void fill(State state, int64_t begin, int64_t end, int64_t n, T* out) {
  Draws<T> draws;
  for (int64_t first = begin; first < end; first += kWidth) {
    draw(state, static_cast<uint64_t>(first), draws);
    const int64_t last = (first + kWidth < end ? first + kWidth : end) * 4;
    const int64_t count = (last < n ? last : n) - 4 * first;
    if (count == 4 * kWidth) {
      for (int i = 0; i < kWidth; ++i)
        for (int lane = 0; lane < 4; ++lane) out[4 * (first + i) + lane] = draws.lane[lane][i];
    } else {
      for (int64_t i = 0; i < count; ++i) out[4 * first + i] = draws.lane[i % 4][i / 4];
    }
  }
}

}  // namespace

const NormalKernels kNormal = {PYGEN_STRING(PYGEN_ISA), fill<float>, fill<double>};

}  // namespace pygen::PYGEN_ISA
