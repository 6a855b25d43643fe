// The CPU kernels of the mixture family as their binding sees them.
#pragma once
#include <cstdint>

namespace pygen {

// Rows [N, dims] of x grouped by component: `rows` and `weights` list those of component 0 first, `sizes` says how many
// each of the components has. Adds nothing: columns [begin, end) of first and second [components, dims] are set to the
// sums of w (x - mean) and w (x - mean)^2.
template <class T>
struct MomentsArguments {
  const T* x;
  const int64_t* rows;
  const double* weights;
  const int64_t* sizes;
  const double* means;
  double* first;
  double* second;
  int64_t components;
  int64_t dims;
};

struct MomentsKernels {
  void (*of_float)(const MomentsArguments<float>& arguments, int64_t begin, int64_t end);
  void (*of_double)(const MomentsArguments<double>& arguments, int64_t begin, int64_t end);
};

// cpu.cpp, compiled once per instruction set.
namespace baseline {
extern const MomentsKernels kMoments;
}
namespace avx2 {
extern const MomentsKernels kMoments;
}
namespace avx512 {
extern const MomentsKernels kMoments;
}

}  // namespace pygen
