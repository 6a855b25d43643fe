// Normal draws on the CPU. CMake compiles this file once per instruction set, PYGEN_ISA naming the namespace.
#include "draws.h"
#include "gaussian.h"

#define PYGEN_STRING_(x) #x
#define PYGEN_STRING(x) PYGEN_STRING_(x)

namespace pygen::PYGEN_ISA {
namespace {

template <class T>
void fill(State state, int64_t begin, int64_t end, int64_t n, T* out) {
  Draws<T> draws;
  T last[kDraws];
  const int64_t stop = 4 * end < n ? 4 * end : n;
  for (int64_t first = 4 * begin; first < stop; first += kDraws) {
    draw(state, static_cast<uint64_t>(first / 4), draws);
    const bool whole = first + kDraws <= stop;
    interleave(draws, whole ? out + first : last);
    if (!whole) std::memcpy(out + first, last, (stop - first) * sizeof(T));
  }
}

}  // namespace

const NormalKernels kNormal = {PYGEN_STRING(PYGEN_ISA), fill<float>, fill<double>};

}  // namespace pygen::PYGEN_ISA
