// Rows of noise on the CPU, scaled and shifted where features are independent. CMake compiles this file once per
// instruction set, PYGEN_ISA naming the namespace.
#include "../gaussian/draws.h"
#include "sampling.h"

namespace pygen::PYGEN_ISA {
namespace {

// Calls each(row, column, eps, length) for the parts of rows [begin, end), a row beginning with a block of its own.
template <class T, class Each>
void noise(State state, int64_t columns, int64_t begin, int64_t end, const Each& each) {
  const int64_t width = (columns + 3) / 4 * 4, stop = end * width;
  Draws<T> draws;
  T eps[kDraws];
  int64_t row = begin, column = 0;
  for (int64_t first = begin * width; first < stop; first += kDraws) {
    draw(state, static_cast<uint64_t>(first / 4), draws);
    interleave(draws, eps);
    const int64_t count = stop - first < kDraws ? stop - first : kDraws;
    for (int64_t at = 0; at < count;) {
      const int64_t length = width - column < count - at ? width - column : count - at;
      each(row, column, eps + at, column + length < columns ? length : columns - column);
      at += length;
      column += length;
      if (column == width) ++row, column = 0;
    }
  }
}

template <class T>
void scaled(const T* __restrict__ eps, const T* __restrict__ mean, const T* __restrict__ scale, int64_t length,
            T* __restrict__ out) {
  for (int64_t i = 0; i < length; ++i) out[i] = eps[i] * scale[i] + mean[i];
}

template <class T>
void scaled(const T* __restrict__ eps, const T* __restrict__ mean, T scale, int64_t length, T* __restrict__ out) {
  for (int64_t i = 0; i < length; ++i) out[i] = eps[i] * scale + mean[i];
}

template <class T>
void diagonal(State state, const DiagonalGaussians<T>& a, int64_t begin, int64_t end) {
  noise<T>(state, a.columns, begin, end, [&](int64_t row, int64_t column, const T* eps, int64_t length) {
    const int64_t k = a.index[row];
    const T *mean = a.means + k * a.columns + column, *scale = a.scales + k * a.scale_stride;
    T* out = a.out + row * a.columns + column;
    if (a.spherical)
      scaled(eps, mean, *scale, length, out);
    else
      scaled(eps, mean, scale + column, length, out);
  });
}

template <class T>
void fill_rows(State state, int64_t columns, int64_t begin, int64_t end, T* out) {
  noise<T>(state, columns, begin, end, [&](int64_t row, int64_t column, const T* eps, int64_t length) {
    std::memcpy(out + row * columns + column, eps, length * sizeof(T));
  });
}

}  // namespace

const SamplingKernels<float> kSamplingFloat = {diagonal<float>, fill_rows<float>};
const SamplingKernels<double> kSamplingDouble = {diagonal<double>, fill_rows<double>};

}  // namespace pygen::PYGEN_ISA
