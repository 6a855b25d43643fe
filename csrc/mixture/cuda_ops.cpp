// Binds the mixture family's CUDA kernels to the operators that pygen/ops defines.
#include <initializer_list>
#include <optional>
#include <tuple>

#include "../common.h"
#include "cuda.h"

namespace pygen {
namespace {

bool is_double_matrix(const Tensor& tensor, int64_t rows, int64_t columns) {
  return tensor.scalar_type() == ScalarType::Double && tensor.dim() == 2 && tensor.size(0) == rows &&
         tensor.size(1) == columns;
}

bool is_double_vector(const Tensor& tensor, int64_t n) {
  return tensor.scalar_type() == ScalarType::Double && tensor.dim() == 1 && tensor.size(0) == n;
}

void check_gaussians(const Tensor& x, const Tensor& means, const Tensor& precisions, const Tensor& constant) {
  const ScalarType dtype = x.scalar_type();
  STD_TORCH_CHECK(x.dim() == 2 && (dtype == ScalarType::Float || dtype == ScalarType::Double),
                  "x must be float32 or float64 [N, D]");
  STD_TORCH_CHECK(means.dim() == 2 && is_double_matrix(means, means.size(0), x.size(1)),
                  "means must be float64 [K, D] with the D of x");
  STD_TORCH_CHECK(means.size(0) > 0, "means must have a component");
  STD_TORCH_CHECK(is_double_matrix(precisions, means.size(0), means.size(1)),
                  "precisions must be float64 [K, D] as means are");
  STD_TORCH_CHECK(is_double_vector(constant, means.size(0)), "constant must be float64 [K], as many as means");
  check_devices(x, {&means, &precisions, &constant});
}

std::tuple<Tensor, Tensor> diagonal_log_joint_cuda(const Tensor& x_in, const Tensor& means_in,
                                                   const Tensor& precisions_in, const Tensor& constant_in, bool settle,
                                                   bool fast) {
  check_gaussians(x_in, means_in, precisions_in, constant_in);
  const torch::stable::accelerator::DeviceGuard guard(x_in.get_device_index());
  const Tensor x = torch::stable::contiguous(x_in), means = torch::stable::contiguous(means_in),
               precisions = torch::stable::contiguous(precisions_in), constant = torch::stable::contiguous(constant_in);
  const int64_t n = x.size(0), dims = x.size(1), components = means.size(0);
  const bool is_double = x.scalar_type() == ScalarType::Double;
  Tensor relative = torch::stable::new_empty(x, {components, n}),
         largest = torch::stable::new_empty(x, {n}, ScalarType::Double);
  int64_t bytes = 0;
  diagonal_log_joint_bytes(n, components, dims, is_double, &bytes);
  const Tensor workspace = torch::stable::new_empty(x, {bytes}, ScalarType::Byte);
  const char* error = launch_diagonal_log_joint(
      x.data_ptr(), data<double>(means), data<double>(precisions), data<double>(constant), n, components, dims,
      is_double, settle, fast, workspace.data_ptr(), relative.data_ptr(), data<double>(largest), current_stream(x));
  STD_TORCH_CHECK(error == nullptr, "diagonal_log_joint: ", error);
  return {relative, largest};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> diagonal_em_cuda(const Tensor& x_in, const Tensor& means_in,
                                                            const Tensor& precisions_in, const Tensor& constant_in,
                                                            const std::optional<Tensor>& weights_in, bool fast) {
  check_gaussians(x_in, means_in, precisions_in, constant_in);
  const torch::stable::accelerator::DeviceGuard guard(x_in.get_device_index());
  const Tensor x = torch::stable::contiguous(x_in), means = torch::stable::contiguous(means_in),
               precisions = torch::stable::contiguous(precisions_in), constant = torch::stable::contiguous(constant_in);
  const int64_t n = x.size(0), dims = x.size(1), components = means.size(0);
  const bool is_double = x.scalar_type() == ScalarType::Double;
  std::optional<Tensor> weights;
  if (weights_in.has_value()) {
    STD_TORCH_CHECK(is_double_vector(*weights_in, n), "sample_weight must be float64 [N], as many as rows of x");
    check_devices(x, {&*weights_in});
    weights = torch::stable::contiguous(*weights_in);
  }
  Tensor counts = torch::stable::new_empty(means, {components}),
         first = torch::stable::new_empty(means, {components, dims}),
         second = torch::stable::new_empty(means, {components, dims}),
         log_likelihood = torch::stable::new_empty(means, {});
  const int64_t rows = diagonal_em_rows(n, components, is_double);
  int64_t bytes = 0;
  diagonal_em_bytes(rows, components, dims, is_double, &bytes);
  const Tensor workspace = torch::stable::new_empty(x, {bytes}, ScalarType::Byte);
  const char* error = launch_diagonal_em(
      x.data_ptr(), data<double>(means), data<double>(precisions), data<double>(constant),
      weights ? data<double>(*weights) : nullptr, rows, n, components, dims, is_double, fast, workspace.data_ptr(),
      data<double>(counts), data<double>(first), data<double>(second), data<double>(log_likelihood), current_stream(x));
  STD_TORCH_CHECK(error == nullptr, "diagonal_em: ", error);
  return {counts, first, second, log_likelihood};
}

}  // namespace
}  // namespace pygen

STABLE_TORCH_LIBRARY_IMPL(pygen, CUDA, m) {
  m.impl("diagonal_log_joint", TORCH_BOX(&pygen::diagonal_log_joint_cuda));
  m.impl("diagonal_em", TORCH_BOX(&pygen::diagonal_em_cuda));
}
