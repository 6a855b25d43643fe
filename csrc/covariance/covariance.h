// The CPU kernels of full covariances as their binding sees them. T is float or double, the data's own.
#pragma once
#include <cstdint>

namespace pygen {

// |(x_row - centre) U|^2 for rows of x [*, dims], over `size` of the features. U [size, *] is stored by panels of so
// many columns as the kernel says, each [height, columns]: what lies below is zero.
template <class T>
struct Whitening {
  const T* x;
  int64_t dims;
  const int64_t* rows;      // null: all
  const int64_t* features;  // [size]; null: all
  const T* centre;          // [size]
  int64_t size;
  const T* panels;
  const int64_t* heights;
  int64_t n_panels;
  T* norms;
};

// Rows [begin, end) of `rows`. `scratch` takes `size` times the kernel's number of rows.
template <class T>
using Whiten = void (*)(const Whitening<T>& whitening, int64_t begin, int64_t end, T* scratch);

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

struct CovarianceKernels {
  Whiten<float> whiten_float;
  Whiten<double> whiten_double;
  Pack<float> pack_float;
  Pack<double> pack_double;
  Varies<float> varies_float;
  Varies<double> varies_double;
  Multiply multiply;
  int rows;                                    // that Whiten takes together
  int float_columns, double_columns, columns;  // of a panel: of Whiten by type, of Scatter
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
