// Binds the mixture family's kernels to the operators that pygen/ops defines.
#include "../common.h"
#include "../isa.h"
#include "mixture.h"

namespace pygen {
namespace {

template <class T>
void run(void (*kernel)(const MomentsArguments<T>&, int64_t, int64_t), const Tensor& x, const Tensor& rows,
         const Tensor& weights, const Tensor& sizes, const Tensor& means, Tensor& first, Tensor& second) {
  constexpr int64_t kGrain = 64;  // columns a thread takes at least: whole cache lines of every row
  const MomentsArguments<T> arguments = {static_cast<const T*>(x.data_ptr()),
                                         static_cast<const int64_t*>(rows.data_ptr()),
                                         static_cast<const double*>(weights.data_ptr()),
                                         static_cast<const int64_t*>(sizes.data_ptr()),
                                         static_cast<const double*>(means.data_ptr()),
                                         static_cast<double*>(first.data_ptr()),
                                         static_cast<double*>(second.data_ptr()),
                                         means.size(0),
                                         means.size(1)};
  torch::stable::parallel_for(0, means.size(1), kGrain,
                              [&](int64_t begin, int64_t end) { kernel(arguments, begin, end); });
}

std::tuple<Tensor, Tensor> moments_cpu(const Tensor& x_in, const Tensor& rows_in, const Tensor& weights_in,
                                       const Tensor& sizes_in, const Tensor& means_in) {
  const ScalarType dtype = x_in.scalar_type();
  STD_TORCH_CHECK(x_in.dim() == 2 && (dtype == ScalarType::Float || dtype == ScalarType::Double),
                  "moments: x must be float32 or float64 [N, D]");
  STD_TORCH_CHECK(
      means_in.dim() == 2 && means_in.size(1) == x_in.size(1) && means_in.scalar_type() == ScalarType::Double,
      "moments: means must be float64 [K, D] with the D of x");
  STD_TORCH_CHECK(rows_in.dim() == 1 && rows_in.scalar_type() == ScalarType::Long, "moments: rows must be int64 [P]");
  STD_TORCH_CHECK(
      weights_in.dim() == 1 && weights_in.size(0) == rows_in.size(0) && weights_in.scalar_type() == ScalarType::Double,
      "moments: weights must be float64 [P], as many as rows");
  STD_TORCH_CHECK(
      sizes_in.dim() == 1 && sizes_in.size(0) == means_in.size(0) && sizes_in.scalar_type() == ScalarType::Long,
      "moments: sizes must be int64 [K], as many as means");
  const Tensor x = torch::stable::contiguous(x_in), rows = torch::stable::contiguous(rows_in),
               weights = torch::stable::contiguous(weights_in), sizes = torch::stable::contiguous(sizes_in),
               means = torch::stable::contiguous(means_in);
  const int64_t *size = static_cast<const int64_t*>(sizes.data_ptr()),
                *row = static_cast<const int64_t*>(rows.data_ptr());
  int64_t total = 0;
  for (int64_t k = 0; k < sizes.size(0); ++k) {
    STD_TORCH_CHECK(size[k] >= 0, "moments: sizes must not be negative");
    total += size[k];
  }
  STD_TORCH_CHECK(total == rows.size(0), "moments: sizes must add up to the number of rows");
  for (int64_t pair = 0; pair < total; ++pair)
    STD_TORCH_CHECK(row[pair] >= 0 && row[pair] < x.size(0), "moments: rows must lie in [0, N)");

  Tensor first = torch::stable::empty_like(means), second = torch::stable::empty_like(means);
  const MomentsKernels& kernels = PYGEN_BEST(kMoments);
  if (dtype == ScalarType::Float) {
    run(kernels.of_float, x, rows, weights, sizes, means, first, second);
  } else {
    run(kernels.of_double, x, rows, weights, sizes, means, first, second);
  }
  return {first, second};
}

}  // namespace
}  // namespace pygen

STABLE_TORCH_LIBRARY_IMPL(pygen, CPU, m) { m.impl("moments", TORCH_BOX(&pygen::moments_cpu)); }
