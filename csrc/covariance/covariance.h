// The CPU kernels of full covariances as their bindings see them. T is float or double, the data's own.
#pragma once
#include <cstdint>

namespace pygen {

// Chosen features, less a centre.
template <class T>
struct Features {
  const int64_t* numbers;
  const T* centre;
  int64_t size;
};

// Rows side by side: tile [size, rows of a tile] of x[row] - shift (null: 0) - centre, the last row repeated where
// fewer than a tile are left.
template <class T>
using Gather = void (*)(const T* x, int64_t dims, const T* shift, const Features<T>& features, const int64_t* rows,
                        int64_t n, T* tile);

// The same from a tile of all features of x - shift. Both tiles have room for kTilePadding bytes more.
constexpr int64_t kTilePadding = 64;
template <class T>
using Choose = void (*)(const T* tile, const Features<T>& features, T* chosen);

// |d U|^2 for the rows d of a tile. U [size, *] is stored by panels of so many columns as the kernel says, each
// [height, columns]: what lies below is zero. No panel is lower than the one before.
template <class T>
struct Whitening {
  const T* panels;
  const int64_t* heights;
  int64_t n_panels;
};

// Adds to the norms of a tile's rows.
template <class T>
using Whiten = void (*)(const Whitening<T>& whitening, const T* tile, double* norms);

// The same of a tile of all features, where U is diagonal: the squares of its entries are the precisions.
template <class T>
using Scale = void (*)(const T* tile, const Features<T>& features, const T* precisions, double* norms);

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

// Writes the rows of the upper triangle of second [size, size] that a panel stands for, or adds to them.
using Multiply = void (*)(const double* packed, int64_t n, int64_t size, int64_t panel, bool add, double* second);

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
  Choose<T> choose;
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
