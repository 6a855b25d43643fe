// A pass of EM with few features, as its bindings take it.
#pragma once
#include <algorithm>
#include <vector>

#include "../common.h"
#include "../isa.h"
#include "../items.h"
#include "few.h"

namespace pygen {

// Null where bounds and pairs pay.
template <class T>
const FewKernels<T>* few(bool dependent, int64_t components, int64_t dims) {
  const int64_t numbers = components * dims * (dependent ? dims : 1);
  if (dims >= kScreenedColumns || numbers > (dependent ? kFewDependent : kFewIndependent)) return nullptr;
  const FewOfBoth<T>* kernels;
  if constexpr (sizeof(T) == 4)
    kernels = &PYGEN_BEST(kFewFloat);
  else
    kernels = &PYGEN_BEST(kFewDouble);
  return dependent ? &kernels->dependent : &kernels->independent;
}

// By parts of the rows, a few hundred at least and whole groups of them in any instruction set, whose sums take a few
// MB at most. Writes counts, first and second and gives the log-likelihood.
template <class T>
double few_em(const FewKernels<T>& kernels, const Few<T>& a, const double* weights, double* counts, double* first,
              double* second) {
  constexpr int64_t kNumbers = int64_t{1} << 19, kLeast = 512, kMost = 64, kFewest = 8, kGroup = 64;
  const FewSizes size = kernels.sizes(a);
  const int64_t most = std::clamp(kNumbers / size.sums, kFewest, kMost),
                rows = std::max(kLeast, (a.n / most + kGroup) / kGroup * kGroup), parts = (a.n + rows - 1) / rows;
  std::vector<double> found(parts * size.sums);
  over_items(parts, [&](int64_t part) {
    std::vector<double> scratch(size.scratch);
    kernels.em(a, part * rows, std::min((part + 1) * rows, a.n), weights, scratch.data(),
               found.data() + part * size.sums);
  });
  double log_likelihood = 0;
  std::fill_n(counts, a.components, 0.0);
  std::fill_n(first, size.first, 0.0);
  std::fill_n(second, size.second, 0.0);
  const auto add = [](const double* from, int64_t n, double* to) {
    for (int64_t i = 0; i < n; ++i) to[i] += from[i];
  };
  for (int64_t part = 0; part < parts; ++part) {
    const double* from = found.data() + part * size.sums;
    log_likelihood += from[0];
    add(from + 1, a.components, counts);
    add(from + 1 + a.components, size.first, first);
    add(from + 1 + a.components + size.first, size.second, second);
  }
  if (size.second > size.first)  // the upper triangles
    for (int64_t k = 0; k < a.components; ++k, second += a.dims * a.dims)
      for (int64_t i = 0; i < a.dims; ++i)
        for (int64_t j = 0; j < i; ++j) second[j * a.dims + i] = second[i * a.dims + j];
  return log_likelihood;
}

}  // namespace pygen
