// The CPU kernels of the mixture family as their binding sees them. T is float or double, the data's own.
#pragma once
#include <cstdint>

namespace pygen {

// Rows of x [N, dims] grouped by component: `rows` and `weights` list those of component 0 first, `sizes` says how many
// each component has. Sets columns [begin, end) of first and second [components, dims] to the sums of w (x - mean) and
// w (x - mean)^2.
template <class T>
struct Moments {
  const T* x;
  const int64_t* rows;
  const double* weights;
  const int64_t* sizes;
  const double* means;
  double* first;
  double* second;
  int64_t components;
  int64_t dims;
  void (*run)(const Moments& arguments, int64_t begin, int64_t end);
};

// Log joint densities of rows [begin, end) of x [n, dims]: largest [n], and relative [components, n] less it. The
// parameters [components, dims] come in float64 and rounded to T; `scratch` takes kTileRows doubles per component.
template <class T>
struct LogJoint {
  const T* x;
  const T* means;
  const T* precisions;
  const double* exact_means;
  const double* exact_precisions;
  const double* constant;
  T* relative;
  double* largest;
  int64_t n;
  int64_t components;
  int64_t dims;
  void (*run)(const LogJoint& arguments, int64_t begin, int64_t end, double* scratch);
};

// Adds, for columns [begin, end) of x [n, dims], the weight of each row (1 where weights is null) to
// counts [classes, dims, categories] at the row's class and the value's category; values outside are passed over.
template <class T>
struct Counts {
  const T* x;
  const int64_t* index;
  const double* weights;
  double* counts;
  int64_t n;
  int64_t dims;
  int64_t categories;
  void (*run)(const Counts& arguments, int64_t begin, int64_t end);
};

// Rows that share each load of the parameters: their sums fill half of AVX-512's registers.
constexpr int kTileRows = 8;

struct MixtureKernels {
  decltype(Moments<float>::run) moments_float;
  decltype(Moments<double>::run) moments_double;
  decltype(LogJoint<float>::run) log_joint_float;
  decltype(LogJoint<double>::run) log_joint_double;
  decltype(Counts<uint8_t>::run) count_bytes;
  decltype(Counts<int64_t>::run) count_integers;
};

// cpu.cpp, compiled once per instruction set.
namespace baseline {
extern const MixtureKernels kMixture;
}
namespace avx2 {
extern const MixtureKernels kMixture;
}
namespace avx512 {
extern const MixtureKernels kMixture;
}

}  // namespace pygen
