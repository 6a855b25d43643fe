// The CPU kernels of mixtures with few features as their bindings see them: every row with every component, in float64,
// since many components matter to a row there, and pairs would cost more than the numbers.
#pragma once
#include "mixture.h"

namespace pygen {

// Parameters in float64: `shape` are precisions [components, dims] of independent features, or factors [components,
// dims, dims], upper triangles, of precision matrices.
template <class T>
struct Few {
  const T* x;
  const double* means;
  const double* shape;
  const double* constant;
  int64_t n;
  int64_t components;
  int64_t dims;
};

// What a pass of EM sums: the log-likelihood, counts [components], first [components, dims] and second, as `shape`, of
// w (x - mean) and its products. Of a triangle the lower one is written, and the upper one not.
struct FewSizes {
  int64_t scratch, first, second, sums;
};

// Numbers of second moments up to which this was seen to pay.
constexpr int64_t kFewIndependent = 16384, kFewDependent = 4096;

template <class T>
struct FewKernels {
  FewSizes (*sizes)(const Few<T>& a);
  // Writes the sums of rows [begin, end) with weights [n] (null: 1).
  void (*em)(const Few<T>& a, int64_t begin, int64_t end, const double* weights, double* scratch, double* sums);
  // As LogJoint and LogDensity of mixture.h.
  void (*log_joint)(const Few<T>& a, int64_t begin, int64_t end, double* scratch, T* relative, double* largest);
  void (*log_density)(const Few<T>& a, int64_t begin, int64_t end, double* scratch, double* density,
                      int64_t* component);
};

// Of independent features, and of others.
template <class T>
struct FewOfBoth {
  FewKernels<T> independent, dependent;
};

// few.cpp, compiled once per instruction set.
namespace baseline {
extern const FewOfBoth<float> kFewFloat;
extern const FewOfBoth<double> kFewDouble;
}  // namespace baseline
namespace avx2 {
extern const FewOfBoth<float> kFewFloat;
extern const FewOfBoth<double> kFewDouble;
}  // namespace avx2
namespace avx512 {
extern const FewOfBoth<float> kFewFloat;
extern const FewOfBoth<double> kFewDouble;
}  // namespace avx512

}  // namespace pygen
