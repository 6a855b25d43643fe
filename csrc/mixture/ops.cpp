// Binds the mixture family's kernels to the operators that pygen/ops defines.
#include <optional>
#include <vector>

#include "../common.h"
#include "../isa.h"
#include "mixture.h"

namespace pygen {
namespace {

void check(const Tensor& tensor, const char* expected, ScalarType dtype, int64_t dim, int64_t rows, int64_t columns) {
  const bool fits = tensor.scalar_type() == dtype && tensor.dim() == dim && tensor.size(0) == rows &&
                    (dim == 1 || tensor.size(1) == columns);
  STD_TORCH_CHECK(fits, expected);
}

ScalarType check_rows(const Tensor& x, const Tensor& means) {
  const ScalarType dtype = x.scalar_type();
  STD_TORCH_CHECK(x.dim() == 2 && (dtype == ScalarType::Float || dtype == ScalarType::Double),
                  "x must be float32 or float64 [N, D]");
  STD_TORCH_CHECK(means.dim() == 2, "means must be float64 [K, D]");
  check(means, "means must be float64 [K, D] with the D of x", ScalarType::Double, 2, means.size(0), x.size(1));
  return dtype;
}

template <class T>
T* data(const Tensor& tensor) {
  return static_cast<T*>(tensor.data_ptr());
}

void check_groups(const Tensor& rows, const Tensor& sizes, int64_t n) {
  const int64_t *size = data<int64_t>(sizes), *row = data<int64_t>(rows);
  int64_t total = 0;
  for (int64_t k = 0; k < sizes.size(0); ++k) {
    STD_TORCH_CHECK(size[k] >= 0, "sizes must not be negative");
    total += size[k];
  }
  STD_TORCH_CHECK(total == rows.size(0), "sizes must add up to the number of rows");
  for (int64_t pair = 0; pair < total; ++pair)
    STD_TORCH_CHECK(row[pair] >= 0 && row[pair] < n, "rows must lie in [0, N)");
}

std::tuple<Tensor, Tensor> moments_cpu(const Tensor& x_in, const Tensor& rows_in, const Tensor& weights_in,
                                       const Tensor& sizes_in, const Tensor& means_in) {
  constexpr int64_t kGrain = 64;  // columns a thread takes at least: whole cache lines of every row
  const ScalarType dtype = check_rows(x_in, means_in);
  const Tensor x = torch::stable::contiguous(x_in), rows = torch::stable::contiguous(rows_in),
               weights = torch::stable::contiguous(weights_in), sizes = torch::stable::contiguous(sizes_in),
               means = torch::stable::contiguous(means_in);
  const int64_t components = means.size(0), dims = means.size(1);
  STD_TORCH_CHECK(rows.dim() == 1, "rows must be int64 [P]");
  check(rows, "rows must be int64 [P]", ScalarType::Long, 1, rows.size(0), 0);
  check(weights, "weights must be float64 [P], as many as rows", ScalarType::Double, 1, rows.size(0), 0);
  check(sizes, "sizes must be int64 [K], as many as means", ScalarType::Long, 1, components, 0);
  check_groups(rows, sizes, x.size(0));
  Tensor first = torch::stable::empty_like(means), second = torch::stable::empty_like(means);
  const MixtureKernels& kernels = PYGEN_BEST(kMixture);
  const auto run = [&](auto type, auto kernel) {
    using T = decltype(type);
    const Moments<T> arguments = {data<T>(x),
                                  data<int64_t>(rows),
                                  data<double>(weights),
                                  data<int64_t>(sizes),
                                  data<double>(means),
                                  data<double>(first),
                                  data<double>(second),
                                  components,
                                  dims,
                                  kernel};
    torch::stable::parallel_for(0, dims, kGrain,
                                [&](int64_t begin, int64_t end) { arguments.run(arguments, begin, end); });
  };
  dtype == ScalarType::Float ? run(float{}, kernels.moments_float) : run(double{}, kernels.moments_double);
  return {first, second};
}

template <class T>
std::vector<T> rounded(const Tensor& tensor) {
  const double* from = data<double>(tensor);
  return std::vector<T>(from, from + tensor.numel());
}

std::tuple<Tensor, Tensor> diagonal_log_joint_cpu(const Tensor& x_in, const Tensor& means_in,
                                                  const Tensor& precisions_in, const Tensor& constant_in) {
  constexpr int64_t kGrain = 8 * kTileRows;  // rows a thread takes at least: whole tiles, some 100 us of work
  const ScalarType dtype = check_rows(x_in, means_in);
  const Tensor x = torch::stable::contiguous(x_in), means = torch::stable::contiguous(means_in),
               precisions = torch::stable::contiguous(precisions_in), constant = torch::stable::contiguous(constant_in);
  const int64_t n = x.size(0), components = means.size(0), dims = means.size(1);
  STD_TORCH_CHECK(components > 0, "means must have a component");
  check(precisions, "precisions must be float64 [K, D] as means are", ScalarType::Double, 2, components, dims);
  check(constant, "constant must be float64 [K], as many as means", ScalarType::Double, 1, components, 0);
  Tensor relative = torch::stable::new_empty(x, {components, n}, dtype);
  Tensor largest = torch::stable::new_empty(x, {n}, ScalarType::Double);
  const MixtureKernels& kernels = PYGEN_BEST(kMixture);
  const auto run = [&](auto type, auto kernel) {
    using T = decltype(type);
    const std::vector<T> mean = rounded<T>(means), precision = rounded<T>(precisions);
    const LogJoint<T> arguments = {data<T>(x),
                                   mean.data(),
                                   precision.data(),
                                   data<double>(means),
                                   data<double>(precisions),
                                   data<double>(constant),
                                   data<T>(relative),
                                   data<double>(largest),
                                   n,
                                   components,
                                   dims,
                                   kernel};
    torch::stable::parallel_for(0, (n + kTileRows - 1) / kTileRows, kGrain / kTileRows,
                                [&](int64_t begin, int64_t end) {
                                  std::vector<double> scratch(components * kTileRows);
                                  const int64_t last = end * kTileRows;
                                  arguments.run(arguments, begin * kTileRows, last < n ? last : n, scratch.data());
                                });
  };
  dtype == ScalarType::Float ? run(float{}, kernels.log_joint_float) : run(double{}, kernels.log_joint_double);
  return {relative, largest};
}

Tensor count_categories_cpu(const Tensor& x_in, const Tensor& index_in, const std::optional<Tensor>& weights_in,
                            int64_t classes, int64_t categories) {
  constexpr int64_t kGrain = 64;  // columns a thread takes at least: whole cache lines of every row
  const ScalarType dtype = x_in.scalar_type();
  STD_TORCH_CHECK(x_in.dim() == 2 && (dtype == ScalarType::Byte || dtype == ScalarType::Long),
                  "x must be uint8 or int64 [N, D]");
  STD_TORCH_CHECK(classes > 0 && categories > 0, "there must be a class and a category");
  const Tensor x = torch::stable::contiguous(x_in), index = torch::stable::contiguous(index_in);
  const int64_t n = x.size(0), dims = x.size(1);
  check(index, "index must be int64 [N], as many as rows of x", ScalarType::Long, 1, n, 0);
  const int64_t* label = data<int64_t>(index);
  for (int64_t row = 0; row < n; ++row)
    STD_TORCH_CHECK(label[row] >= 0 && label[row] < classes, "index must lie in [0, n_classes)");
  std::optional<Tensor> weights;
  if (weights_in.has_value()) {
    check(*weights_in, "weights must be float64 [N], as many as rows of x", ScalarType::Double, 1, n, 0);
    weights = torch::stable::contiguous(*weights_in);
  }
  Tensor counts = torch::stable::new_empty(x, {classes, dims, categories}, ScalarType::Double);
  torch::stable::zero_(counts);
  const MixtureKernels& kernels = PYGEN_BEST(kMixture);
  const auto run = [&](auto type, auto kernel) {
    using T = decltype(type);
    const Counts<T> arguments = {data<T>(x),           label, weights ? data<double>(*weights) : nullptr,
                                 data<double>(counts), n,     dims,
                                 categories,           kernel};
    torch::stable::parallel_for(0, dims, kGrain,
                                [&](int64_t begin, int64_t end) { arguments.run(arguments, begin, end); });
  };
  dtype == ScalarType::Byte ? run(uint8_t{}, kernels.count_bytes) : run(int64_t{}, kernels.count_integers);
  return counts;
}

}  // namespace
}  // namespace pygen

STABLE_TORCH_LIBRARY_IMPL(pygen, CPU, m) {
  m.impl("moments", TORCH_BOX(&pygen::moments_cpu));
  m.impl("count_categories", TORCH_BOX(&pygen::count_categories_cpu));
  m.impl("diagonal_log_joint", TORCH_BOX(&pygen::diagonal_log_joint_cpu));
}
