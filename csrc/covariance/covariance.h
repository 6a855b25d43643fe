// The CPU kernels of full covariances as their bindings see them. T is float or double, the data's own.
#pragma once
#include <cstdint>

namespace pygen {

// Rows side by side: tile [dims, rows of a tile] of x[row] - centre (null: 0), the last row repeated where fewer than a
// tile are left.
template <class T>
using Gather = void (*)(const T* x, int64_t dims, const T* centre, const int64_t* rows, int64_t n, T* tile);

// |(x - centre) U|^2 for `size` features of x. U [size, *] is stored by panels of so many columns as the kernel says,
// each [height, columns]: what lies below is zero.
template <class T>
struct Whitening {
  const int64_t* features;
  const T* centre;
  int64_t size;
  const T* panels;
  const int64_t* heights;
  int64_t n_panels;
};

// Adds to the norms of a tile's rows. `scratch` is as large as a tile.
template <class T>
using Whiten = void (*)(const Whitening<T>& whitening, const T* tile, T* scratch, double* norms);

// The same where U is diagonal.
template <class T>
struct Scaling {
  const int64_t* features;
  const T* centre;
  const T* precisions;
  int64_t size;
};

template <class T>
using Scale = void (*)(const Scaling<T>& scaling, const T* tile, double* norms);

// Sums of w (x_row - mean) and w (x_row - mean) (x_row - mean)^T over a block of rows of x [*, dims] and `size` of its
// features. The rows, scaled by the roots of their weights, are first packed into panels of so many columns as the
// kernel says, each [n, columns].
template <class T>
struct Scatter {
  const T* x;
  int64_t dims;
  const int64_t* rows;  // [n]
  const double* roots;  // [n]
  int64_t n;
  const int64_t* features;  // [size]
  int64_t size;
  const double* mean;  // [dims]
  double* packed;
  double* first;  // [dims]
};

// Packs a panel, and adds its part of the first sums.
template <class T>
using Pack = void (*)(const Scatter<T>& scatter, int64_t panel);

// Adds the rows of the upper triangle of second [size, size] that a panel stands for.
using Multiply = void (*)(const double* packed, int64_t n, int64_t size, int64_t panel, double* second);

// Whether any of the rows differs from the mean, for features [begin, end).
template <class T>
using Varies = void (*)(const T* x, int64_t dims, const int64_t* rows, int64_t n, const double* mean, int64_t begin,
                        int64_t end, unsigned char* varies);

// Columns of a matrix, from row `start` on: values [*, columns].
struct Panel {
  double* values;
  int64_t start;
};

// Forward elimination with a symmetric S, by blocks of as many rows as a panel has columns. The first panels hold S, of
// which only rows down to their own columns are read, and become R with R^T R = S; any further columns B become
// R^-T B. Above `row` all is done. First the diagonal block: false where S is not positive definite.
using Factor = bool (*)(const Panel* panels, int64_t row, double* reciprocals);
// Then, with the reciprocals of its diagonal, those beside it.
using Eliminate = void (*)(const Panel* panels, int64_t row, int64_t column, const double* reciprocals);

template <class T>
struct RowKernels {
  Gather<T> gather;
  Whiten<T> whiten;
  Scale<T> scale;
  Pack<T> pack;
  Varies<T> varies;
  int columns;  // of a panel of Whiten
};

struct CovarianceKernels {
  RowKernels<float> of_float;
  RowKernels<double> of_double;
  Multiply multiply;
  Factor factor;
  Eliminate eliminate;
  int rows;     // of a tile
  int columns;  // of a panel of Scatter and Factor
};

// cpu.cpp, compiled once per instruction set.
namespace baseline {
extern const CovarianceKernels kCovariance;
}
namespace avx2 {
extern const CovarianceKernels kCovariance;
}
namespace avx512 {
extern const CovarianceKernels kCovariance;
}

}  // namespace pygen
