// The same pass of EM for each of several mixtures, beside each other.
#pragma once
#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "../common.h"
#include "../items.h"

namespace pygen {

using EmSums = std::tuple<Tensor, Tensor, Tensor, Tensor>;

// Mixture b takes rows [ranges[2 b], ranges[2 b + 1]) of x [N, D]; its parameters are the b-th slices of means, shape
// (precisions or their factors) and constant. `one` is the pass of a single mixture, whose sums do not depend on the
// threads.
template <class One>
EmSums em_of_each(const Tensor& x, const Tensor& means, const Tensor& shape, const Tensor& constant,
                  const std::vector<int64_t>& ranges, const std::optional<Tensor>& weights, bool fast, const One& one) {
  const int64_t mixtures = static_cast<int64_t>(ranges.size()) / 2;
  STD_TORCH_CHECK(static_cast<int64_t>(ranges.size()) == 2 * mixtures && means.size(0) == mixtures &&
                      shape.size(0) == mixtures && constant.size(0) == mixtures,
                  "ranges must be a first row and one past the last for each mixture [B]");
  for (const Tensor* parameter : {&means, &shape, &constant})
    STD_TORCH_CHECK(parameter->scalar_type() == ScalarType::Double, "means, precisions and constant must be float64");
  STD_TORCH_CHECK(!weights.has_value() || (weights->dim() == 1 && weights->size(0) == x.size(0)),
                  "sample_weight must be float64 [N], as many as rows of x");
  for (int64_t b = 0; b < mixtures; ++b)
    STD_TORCH_CHECK(0 <= ranges[2 * b] && ranges[2 * b] <= ranges[2 * b + 1] && ranges[2 * b + 1] <= x.size(0),
                    "ranges must lie in [0, N]");
  Tensor counts = torch::stable::new_empty(constant, constant.sizes()),
         first = torch::stable::new_empty(means, means.sizes()),
         second = torch::stable::new_empty(shape, shape.sizes()),
         log_likelihood = torch::stable::new_empty(constant, {mixtures});
  const auto keep = [](const Tensor& sums, int64_t b, Tensor& to) {
    std::copy_n(data<double>(sums), sums.numel(), data<double>(to) + b * sums.numel());
  };
  over_items(mixtures, [&](int64_t b) {
    const auto rows = [&](Tensor tensor) {
      return torch::stable::narrow(tensor, 0, ranges[2 * b], ranges[2 * b + 1] - ranges[2 * b]);
    };
    const auto of = [&](const Tensor& tensor) { return torch::stable::select(tensor, 0, b); };
    std::optional<Tensor> weight;
    if (weights.has_value()) weight = rows(*weights);
    const EmSums sums = one(rows(x), of(means), of(shape), of(constant), weight, fast);
    keep(std::get<0>(sums), b, counts);
    keep(std::get<1>(sums), b, first);
    keep(std::get<2>(sums), b, second);
    keep(std::get<3>(sums), b, log_likelihood);
  });
  return {counts, first, second, log_likelihood};
}

}  // namespace pygen
