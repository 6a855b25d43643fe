// The CPU kernels of the mixture family as their binding sees them. T is float or double, the data's own.
#pragma once
#include "../pair.h"

namespace pygen {

// Sums first and second [groups, dims] of w (x - mean) and w (x - mean)^2, and pairs of which those of one group lie
// together, to be added to them.
template <class T>
struct Moments {
  const T* x;
  const Pair* pairs;
  int64_t n_pairs;
  const double* means;
  double* first;
  double* second;
  int64_t dims;
};

// Adds to columns [begin, end) of the sums.
template <class T>
using AddMoments = void (*)(const Moments<T>& moments, int64_t begin, int64_t end);

// What bounds log joint densities from above: some columns of the parameters, which are [n_columns, stride] here, those
// of the components side by side, and constants [stride], -inf beyond the components. Sums over the columns are lowered
// by kSlack of themselves, which is more than what rounding to T may add; so are the constants raised.
constexpr double kSlack = 1e-5;
constexpr int64_t kScreenedColumns = 128;  // features from which on they pay

template <class T>
struct Screen {
  const int64_t* columns;
  const T* means;
  const T* precisions;
  const T* constant;
  int64_t n_columns;
  int64_t stride;  // a multiple of any vector's lanes
};

// Gaussians with independent features, and rows x [n, dims]. The parameters [components, dims] come in float64 and
// rounded to T, the means then about a centre [dims] which is known exactly: far from zero rounding would move them.
template <class T>
struct Diagonal {
  const T* x;
  const T* centre;
  const T* means;
  const T* precisions;
  const double* exact_means;
  const double* exact_precisions;
  const double* constant;
  int64_t n;
  int64_t components;
  int64_t dims;
  bool settle;  // whether close calls are done again in float64
  const Screen<T>* screen = nullptr;
};

// Log joint densities of rows [begin, end): largest [n], and relative [components, n] less it. `scratch` takes
// kTileRows doubles per component and feature.
template <class T>
using LogJoint = void (*)(const Diagonal<T>& gaussians, int64_t begin, int64_t end, double* scratch, T* relative,
                          double* largest);

// Bayes' rule for rows [begin, end): writes the pairs that matter by row, at most one per row and component, with
// weights [n] (null: 1) times the responsibility; gives their number and adds to the log-likelihood. `scratch` takes
// as much as above, and with a screen kTileRows doubles more for each of its stride.
template <class T>
using Posterior = int64_t (*)(const Diagonal<T>& gaussians, int64_t begin, int64_t end, const double* weights,
                              double* scratch, Pair* pairs, double* log_likelihood);

// Their log-densities [n] and most probable components [n] alone; `scratch` as above.
template <class T>
using LogDensity = void (*)(const Diagonal<T>& gaussians, int64_t begin, int64_t end, double* scratch,
                            double* log_density, int64_t* component);

// Squared distances of n <= kTileRows rows of x [n, dims] from centres [n_centres, dims]: out [n_centres, kTileRows].
template <class T>
using Distances = void (*)(const T* x, int64_t n, int64_t dims, const T* centres, int64_t n_centres, double* out);

// Lowers each of n bounds by what it is given and a rounding more; gives the least.
using Loosen = float (*)(float* bounds, const float* by, int64_t n);

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
  AddMoments<float> moments_float;
  AddMoments<double> moments_double;
  LogJoint<float> log_joint_float;
  LogJoint<double> log_joint_double;
  Posterior<float> posterior_float;
  Posterior<double> posterior_double;
  LogDensity<float> log_density_float;
  LogDensity<double> log_density_double;
  Distances<float> distances_float;
  Distances<double> distances_double;
  Loosen loosen;
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
