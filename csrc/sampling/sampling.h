// The kernels of the sampling family as their binding sees them: raw pointers, sizes, a stream.
#pragma once
#include "../gaussian/gaussian.h"

namespace pygen {

// Row i is from component index[i]: its mean [columns], and deviations `scale_stride` from those of the component
// before (0: one row for all); one deviation for all columns if `spherical`.
template <class T>
struct DiagonalGaussians {
  const int64_t* index;
  const T *means, *scales;
  int64_t columns, scale_stride;
  bool spherical;
  T* out;  // [*, columns]
};

// Rows [begin, end). `state` is that of the first row's first draw, whatever `begin` is.
template <class T>
using SampleDiagonal = void (*)(State state, const DiagonalGaussians<T>& gaussians, int64_t begin, int64_t end);
// The noise alone, of so many columns.
template <class T>
using FillRows = void (*)(State state, int64_t columns, int64_t begin, int64_t end, T* out);

// A lower triangular factor [size, size] as products take it: transposed, in panels of columns, each as high as it is
// not zero.
template <class T>
using PackFactor = void (*)(const T* factor, int64_t size, T* packed);
// Replaces the noise in `count` rows of out [*, size] by mean + L noise. `scratch` holds [size, count] rounded up to
// whole tiles.
template <class T>
using MultiplyFactor = void (*)(const T* packed, int64_t size, const T* mean, const int64_t* rows, int64_t count,
                                T* scratch, T* out);

template <class T>
struct SamplingKernels {
  SampleDiagonal<T> diagonal;
  FillRows<T> fill_rows;
};

template <class T>
struct FactorKernels {
  PackFactor<T> pack;
  MultiplyFactor<T> multiply;
  int rows;     // of a tile
  int columns;  // of a panel
};

// cpu.cpp and product.cpp, compiled once per instruction set.
#define PYGEN_DECLARE(isa)                              \
  namespace isa {                                       \
  extern const SamplingKernels<float> kSamplingFloat;   \
  extern const SamplingKernels<double> kSamplingDouble; \
  extern const FactorKernels<float> kFactorFloat;       \
  extern const FactorKernels<double> kFactorDouble;     \
  }
PYGEN_DECLARE(baseline)
PYGEN_DECLARE(avx2)
PYGEN_DECLARE(avx512)
#undef PYGEN_DECLARE

// cuda.cu, on `stream`; `out` is contiguous. Each advances `state`, on the device, and returns the error's text, or
// null. dtype: kFloat or kDouble.
const char* launch_sample_diagonal(int64_t* state, const int64_t* index, const void* means, const void* scales,
                                   int64_t n, int64_t columns, int64_t components, int64_t scale_stride, bool spherical,
                                   Real dtype, bool fast, void* out, void* stream);

struct FactorWorkspace {
  int64_t bytes, noise_tiles;
};
FactorWorkspace factor_workspace(int64_t n, int64_t size, int64_t components, int64_t n_factors, Real dtype);
// sorted, order: the index of every row sorted, and where each stood. factors: [n_factors, size, size], one for all
// components or one for each. The workspace is 16-byte aligned and holds the noise of so many tiles of rows.
const char* launch_sample_factor(int64_t* state, const int64_t* sorted, const int64_t* order, const void* means,
                                 const void* factors, int64_t n, int64_t size, int64_t components, int64_t n_factors,
                                 Real dtype, bool fast, void* workspace, int64_t noise_tiles, void* out, void* stream);

// weights, totals: [components]; totals are written.
const char* launch_pick(int64_t* state, const double* weights, int64_t components, int64_t n, double* totals,
                        int64_t* out, void* stream);

}  // namespace pygen
