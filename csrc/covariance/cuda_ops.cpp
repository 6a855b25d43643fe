// Binds the CUDA kernels of full covariances to the operators that pygen/ops defines. Nothing waits for the device.
#include <algorithm>
#include <initializer_list>
#include <optional>
#include <tuple>

#include "../common.h"
#include "cuda.h"

namespace pygen {
namespace {

using OptionalTensor = std::optional<Tensor>;

Real check_rows(const Tensor& x) {
  const ScalarType dtype = x.scalar_type();
  STD_TORCH_CHECK(x.dim() == 2 && (dtype == ScalarType::Float || dtype == ScalarType::Double),
                  "x must be float32 or float64 [N, D]");
  return dtype == ScalarType::Float ? Real::kFloat : Real::kDouble;
}

bool fits(const Tensor& tensor, ScalarType dtype, std::initializer_list<int64_t> shape) {
  if (tensor.scalar_type() != dtype || tensor.dim() != static_cast<int64_t>(shape.size())) return false;
  return std::equal(shape.begin(), shape.end(), tensor.sizes().begin());
}

void check_index(const Tensor& x, const OptionalTensor& index, const char* expected) {
  if (!index.has_value()) return;
  check_devices(x, {&*index});
  STD_TORCH_CHECK(index->dim() == 1 && index->scalar_type() == ScalarType::Long, expected);
}

// x, or the chosen part of it: an index out of range is reported as torch does on a GPU.
Tensor chosen(const Tensor& x, int64_t dim, const OptionalTensor& index) {
  if (!index.has_value()) return x;
  StableIValue stack[] = {torch::stable::detail::from(x), torch::stable::detail::from(dim),
                          torch::stable::detail::from(*index)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::index_select", "", stack, TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

Tensor whitened_norms_cuda(const Tensor& x_in, const Tensor& centre_in, const Tensor& factor_in,
                           const OptionalTensor& features, const OptionalTensor& rows, bool fast) {
  const Real dtype = check_rows(x_in);
  check_devices(x_in, {&centre_in, &factor_in});
  check_index(x_in, rows, "rows must be int64 [P] in [0, N)");
  check_index(x_in, features, "features must be int64 [C] in [0, D)");
  const torch::stable::accelerator::DeviceGuard guard(x_in.get_device_index());
  const Tensor x = torch::stable::contiguous(chosen(chosen(x_in, 0, rows), 1, features)),
               centre = torch::stable::contiguous(centre_in), factor = torch::stable::contiguous(factor_in);
  const int64_t n = x.size(0), size = x.size(1);
  STD_TORCH_CHECK(fits(centre, x.scalar_type(), {size}), "centre must be [C] of the dtype of x");
  STD_TORCH_CHECK(factor.dim() == 2 && fits(factor, x.scalar_type(), {size, factor.size(1)}),
                  "factor must be [C, P] of the dtype of x");
  const int64_t columns = factor.size(1);
  const Tensor norms = torch::stable::new_empty(x, {n}),
               heights = torch::stable::new_empty(x, {(columns + 31) / 32}, ScalarType::Long);
  const char* error = launch_whitened_norms(x.data_ptr(), n, size, centre.data_ptr(), factor.data_ptr(), columns,
                                            data<int64_t>(heights), dtype, fast, norms.data_ptr(), current_stream(x));
  STD_TORCH_CHECK(error == nullptr, "whitened_norms: ", error);
  return norms;
}

void add_scatter_cuda(const Tensor& x_in, const Tensor& mean_in, const Tensor& weights_in, Tensor first, Tensor second,
                      const OptionalTensor& rows_in) {
  const Real dtype = check_rows(x_in);
  check_devices(x_in, {&mean_in, &weights_in, &first, &second});
  check_index(x_in, rows_in, "rows must be int64 [P] in [0, N)");
  const torch::stable::accelerator::DeviceGuard guard(x_in.get_device_index());
  const Tensor x = torch::stable::contiguous(x_in), mean = torch::stable::contiguous(mean_in),
               weights = torch::stable::contiguous(weights_in);
  OptionalTensor rows;
  if (rows_in.has_value()) rows = torch::stable::contiguous(*rows_in);
  const int64_t total = x.size(0), dims = x.size(1), n = rows ? rows->size(0) : total;
  constexpr ScalarType kDouble = ScalarType::Double;
  STD_TORCH_CHECK(fits(weights, kDouble, {n}), "weights must be float64, one for each row");
  STD_TORCH_CHECK(fits(mean, kDouble, {dims}) && fits(first, kDouble, {dims}), "mean and first must be float64 [D]");
  STD_TORCH_CHECK(fits(second, kDouble, {dims, dims}), "second must be float64 [D, D]");
  STD_TORCH_CHECK(first.is_contiguous() && second.is_contiguous(), "first and second must be contiguous");
  const Tensor workspace = torch::stable::new_empty(mean, {scatter_parts(dims, 1) * (dims * dims + dims)});
  const char* error = launch_add_scatter(x.data_ptr(), total, dims, data<double>(mean), data<double>(weights),
                                         rows ? data<int64_t>(*rows) : nullptr, n, dtype, data<double>(workspace),
                                         data<double>(first), data<double>(second), current_stream(x));
  STD_TORCH_CHECK(error == nullptr, "add_scatter: ", error);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> full_em_cuda(const Tensor& x_in, const Tensor& means_in,
                                                        const Tensor& factors_in, const Tensor& constant_in,
                                                        const OptionalTensor& weights_in, bool fast) {
  constexpr ScalarType kDouble = ScalarType::Double;
  const Real dtype = check_rows(x_in);
  check_devices(x_in, {&means_in, &factors_in, &constant_in});
  if (weights_in.has_value()) check_devices(x_in, {&*weights_in});
  STD_TORCH_CHECK(constant_in.dim() == 1 && constant_in.size(0) > 0, "constant must be float64 [K], of a component");
  const int64_t n = x_in.size(0), dims = x_in.size(1), components = constant_in.size(0);
  STD_TORCH_CHECK(fits(constant_in, kDouble, {components}), "constant must be float64 [K]");
  STD_TORCH_CHECK(fits(means_in, kDouble, {components, dims}), "means must be float64 [K, D] with the D of x");
  STD_TORCH_CHECK(fits(factors_in, kDouble, {components, dims, dims}), "precisions_cholesky must be float64 [K, D, D]");
  STD_TORCH_CHECK(!weights_in.has_value() || fits(*weights_in, kDouble, {n}), "sample_weight must be float64 [N]");
  const torch::stable::accelerator::DeviceGuard guard(x_in.get_device_index());
  const Tensor x = torch::stable::contiguous(x_in), means = torch::stable::contiguous(means_in),
               factors = torch::stable::contiguous(factors_in), constant = torch::stable::contiguous(constant_in);
  OptionalTensor weights;
  if (weights_in.has_value()) weights = torch::stable::contiguous(*weights_in);
  const Tensor counts = torch::stable::empty_like(constant), first = torch::stable::empty_like(means),
               second = torch::stable::empty_like(factors), log_likelihood = torch::stable::new_empty(means, {});
  const FullWorkspace needed = full_em_workspace(n, dims, components, dtype);
  const Tensor workspace = torch::stable::new_empty(means, {needed.bytes}, ScalarType::Byte);
  const char* error = launch_full_em(
      x.data_ptr(), n, dims, data<double>(means), data<double>(factors), data<double>(constant),
      weights ? data<double>(*weights) : nullptr, components, dtype, fast, workspace.data_ptr(), needed.chunk,
      data<double>(counts), data<double>(first), data<double>(second), data<double>(log_likelihood), current_stream(x));
  STD_TORCH_CHECK(error == nullptr, "full_em: ", error);
  return {counts, first, second, log_likelihood};
}

std::tuple<Tensor, Tensor> inverse_factors_cuda(const Tensor& matrices_in) {
  STD_TORCH_CHECK(matrices_in.dim() == 3 && matrices_in.size(1) == matrices_in.size(2) &&
                      matrices_in.scalar_type() == ScalarType::Double,
                  "matrices must be float64 [K, D, D]");
  const torch::stable::accelerator::DeviceGuard guard(matrices_in.get_device_index());
  const int64_t components = matrices_in.size(0), dims = matrices_in.size(1);
  const Tensor matrices = torch::stable::clone(torch::stable::contiguous(matrices_in)),
               factors = torch::stable::new_empty(matrices, {components, dims, dims}),
               positive = torch::stable::new_empty(matrices, {components}, ScalarType::Bool);
  const char* error = launch_inverse_factors(data<double>(matrices), components, dims, data<double>(factors),
                                             data<bool>(positive), current_stream(matrices));
  STD_TORCH_CHECK(error == nullptr, "inverse_factors: ", error);
  return {factors, positive};
}

}  // namespace
}  // namespace pygen

STABLE_TORCH_LIBRARY_IMPL(pygen, CUDA, m) {
  m.impl("whitened_norms", TORCH_BOX(&pygen::whitened_norms_cuda));
  m.impl("add_scatter", TORCH_BOX(&pygen::add_scatter_cuda));
  m.impl("full_em", TORCH_BOX(&pygen::full_em_cuda));
  m.impl("inverse_factors", TORCH_BOX(&pygen::inverse_factors_cuda));
}
