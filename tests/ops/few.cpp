// The CPU's kernels of mixtures with few features, one instruction set's, for ctypes.
#include "csrc/mixture/few.h"

#include <vector>

using namespace pygen;
namespace kernels = pygen::PYGEN_ISA;

namespace {

template <class T>
void all(const FewOfBoth<T>& both, bool dependent, const Few<T>& a, const double* weights, double* sums, T* relative,
         double* largest, double* density, int64_t* component) {
  const FewKernels<T>& k = dependent ? both.dependent : both.independent;
  std::vector<double> scratch(k.sizes(a).scratch);
  k.em(a, 0, a.n, weights, scratch.data(), sums);
  k.log_joint(a, 0, a.n, scratch.data(), relative, largest);
  k.log_density(a, 0, a.n, scratch.data(), density, component);
}

}  // namespace

extern "C" {

void all_float(bool dependent, const float* x, const double* means, const double* shape, const double* constant,
               int64_t n, int64_t components, int64_t dims, const double* weights, double* sums, float* relative,
               double* largest, double* density, int64_t* component) {
  all(kernels::kFewFloat, dependent, {x, means, shape, constant, n, components, dims}, weights, sums, relative, largest,
      density, component);
}

void all_double(bool dependent, const double* x, const double* means, const double* shape, const double* constant,
                int64_t n, int64_t components, int64_t dims, const double* weights, double* sums, double* relative,
                double* largest, double* density, int64_t* component) {
  all(kernels::kFewDouble, dependent, {x, means, shape, constant, n, components, dims}, weights, sums, relative,
      largest, density, component);
}
}
