// Binds the kmeans family's CUDA kernels to the operators that pygen/ops defines.
#include <optional>
#include <tuple>

#include "../common.h"
#include "cuda.h"

namespace pygen {
namespace {

bool is_vector(const Tensor& tensor, ScalarType dtype, int64_t n) {
  return tensor.scalar_type() == dtype && tensor.dim() == 1 && tensor.size(0) == n;
}

void check_rows(const Tensor& x) {
  const ScalarType dtype = x.scalar_type();
  STD_TORCH_CHECK(x.dim() == 2 && (dtype == ScalarType::Float || dtype == ScalarType::Double),
                  "x must be float32 or float64 [N, D]");
}

bool is_double_matrix(const Tensor& tensor, int64_t columns) {
  return tensor.scalar_type() == ScalarType::Double && tensor.dim() == 2 && tensor.size(1) == columns;
}

// A tensor that may be missing, as kernels take it: contiguous, and null if it is.
struct Maybe {
  std::optional<Tensor> tensor;

  template <class T>
  T* data() const {
    return tensor ? pygen::data<T>(*tensor) : nullptr;
  }
};

Maybe checked(const Tensor& x, const std::optional<Tensor>& tensor, ScalarType dtype, int64_t n, const char* expected) {
  if (!tensor.has_value()) return {};
  STD_TORCH_CHECK(is_vector(*tensor, dtype, n), expected);
  check_devices(x, {&*tensor});
  return {torch::stable::contiguous(*tensor)};
}

std::tuple<Tensor, Tensor, Tensor> moments_cuda(const Tensor& x_in, const Tensor& groups_in, const Tensor& means_in,
                                                const std::optional<Tensor>& weights_in,
                                                const std::optional<Tensor>& rows_in) {
  check_rows(x_in);
  const int64_t n = x_in.size(0), dims = x_in.size(1);
  STD_TORCH_CHECK(is_double_matrix(means_in, dims), "means must be float64 [K, D] with the D of x");
  STD_TORCH_CHECK(groups_in.dim() == 1 && groups_in.scalar_type() == ScalarType::Long, "groups must be int64 [P]");
  const int64_t entries = groups_in.size(0), groups = means_in.size(0);
  check_devices(x_in, {&groups_in, &means_in});
  const Maybe weights =
      checked(x_in, weights_in, ScalarType::Double, entries, "weights must be float64 [P], as many as groups");
  const Maybe rows = checked(x_in, rows_in, ScalarType::Long, entries, "rows must be int64 [P], as many as groups");
  STD_TORCH_CHECK(rows.tensor || entries == n, "groups must be as many as rows of x where rows are not given");
  STD_TORCH_CHECK(entries == 0 || (n > 0 && groups > 0), "groups must lie in [0, K), and rows in [0, N)");
  const torch::stable::accelerator::DeviceGuard guard(x_in.get_device_index());
  const Tensor x = torch::stable::contiguous(x_in), index = torch::stable::contiguous(groups_in),
               means = torch::stable::contiguous(means_in);
  Tensor counts = torch::stable::new_empty(means, {groups}), first = torch::stable::new_empty(means, {groups, dims}),
         second = torch::stable::new_empty(means, {groups, dims});
  int64_t bytes = 0;
  moments_bytes(entries, groups, dims, &bytes);
  const Tensor workspace = torch::stable::new_empty(x, {bytes}, ScalarType::Byte);
  const char* error = launch_moments(x.data_ptr(), data<int64_t>(index), data<double>(means), weights.data<double>(),
                                     rows.data<int64_t>(), n, entries, groups, dims,
                                     x.scalar_type() == ScalarType::Double, workspace.data_ptr(), data<double>(counts),
                                     data<double>(first), data<double>(second), current_stream(x));
  STD_TORCH_CHECK(error == nullptr, "moments: ", error);
  return {counts, first, second};
}

void check_centres(const Tensor& x, const Tensor& centres) {
  check_rows(x);
  STD_TORCH_CHECK(is_double_matrix(centres, x.size(1)) && centres.size(0) > 0,
                  "centres must be float64 [K, D] with the D of x");
}

void closer_cuda(const Tensor& x_in, const Tensor& centres_in, const Tensor& closest_in, Tensor found) {
  check_centres(x_in, centres_in);
  const int64_t n = x_in.size(0), dims = x_in.size(1), n_centres = centres_in.size(0);
  STD_TORCH_CHECK(is_vector(closest_in, ScalarType::Double, n), "closest must be float64 [N]");
  STD_TORCH_CHECK(found.scalar_type() == ScalarType::Double && found.dim() == 2 && found.size(0) == n_centres &&
                      found.size(1) == n && found.is_contiguous(),
                  "found must be float64 [K, N], contiguous");
  check_devices(x_in, {&centres_in, &closest_in, &found});
  const torch::stable::accelerator::DeviceGuard guard(x_in.get_device_index());
  const Tensor x = torch::stable::contiguous(x_in), centres = torch::stable::contiguous(centres_in),
               closest = torch::stable::contiguous(closest_in);
  const bool is_double = x.scalar_type() == ScalarType::Double;
  int64_t bytes = 0;
  closer_bytes(n_centres, dims, is_double, &bytes);
  const Tensor workspace = torch::stable::new_empty(x, {bytes}, ScalarType::Byte);
  const char* error = launch_closer(x.data_ptr(), data<double>(centres), data<double>(closest), n, dims, n_centres,
                                    is_double, workspace.data_ptr(), data<double>(found), current_stream(x));
  STD_TORCH_CHECK(error == nullptr, "closer: ", error);
}

std::tuple<Tensor, Tensor> lloyd_cuda(const Tensor& x_in, const Tensor& centres_in,
                                      const std::optional<Tensor>& weights_in, int64_t max_iter, double threshold) {
  check_centres(x_in, centres_in);
  const int64_t n = x_in.size(0), dims = x_in.size(1), n_centres = centres_in.size(0);
  check_devices(x_in, {&centres_in});
  const Maybe weights = checked(x_in, weights_in, ScalarType::Double, n, "weights must be float64 [N]");
  STD_TORCH_CHECK(n > 0 && max_iter > 0, "x must have a row, and max_iter be positive");
  const torch::stable::accelerator::DeviceGuard guard(x_in.get_device_index());
  const Tensor x = torch::stable::contiguous(x_in), centres = torch::stable::contiguous(centres_in);
  const bool is_double = x.scalar_type() == ScalarType::Double;
  Tensor labels = torch::stable::new_empty(x, {n}, ScalarType::Long),
         moved = torch::stable::new_empty(centres, {n_centres, dims});
  int64_t bytes = 0;
  lloyd_bytes(n, dims, n_centres, is_double, &bytes);
  const Tensor workspace = torch::stable::new_empty(x, {bytes}, ScalarType::Byte);
  const char* error =
      launch_lloyd(x.data_ptr(), data<double>(centres), weights.data<double>(), n, dims, n_centres, max_iter, threshold,
                   is_double, workspace.data_ptr(), data<int64_t>(labels), data<double>(moved), current_stream(x));
  STD_TORCH_CHECK(error == nullptr, "lloyd: ", error);
  return {labels, moved};
}

}  // namespace
}  // namespace pygen

STABLE_TORCH_LIBRARY_IMPL(pygen, CUDA, m) {
  m.impl("moments", TORCH_BOX(&pygen::moments_cuda));
  m.impl("closer", TORCH_BOX(&pygen::closer_cuda));
  m.impl("lloyd", TORCH_BOX(&pygen::lloyd_cuda));
}
