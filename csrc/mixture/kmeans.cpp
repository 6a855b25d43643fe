// k-means on the CPU: distances from centres, a step of Lloyd's algorithm in one pass over the rows.
#include <optional>

#include "measure.h"
#include "sums.h"

namespace pygen {
namespace {

template <class T>
std::vector<T> rounded(const Tensor& tensor) {
  const double* from = data<double>(tensor);
  return std::vector<T>(from, from + tensor.numel());
}

Tensor closer_cpu(const Tensor& x_in, const Tensor& centres_in, const Tensor& closest_in) {
  const ScalarType dtype = check_centres(x_in, centres_in);
  const int64_t n = x_in.size(0), n_centres = centres_in.size(0);
  STD_TORCH_CHECK(is_vector(closest_in, n), "closest must be float64 [N]");
  const Tensor x = torch::stable::contiguous(x_in), centres = torch::stable::contiguous(centres_in),
               closest = torch::stable::contiguous(closest_in);
  Tensor closer = torch::stable::new_empty(closest, {n_centres, n});
  double* to = data<double>(closer);
  const double* least = data<double>(closest);
  const auto run = [&](auto type) {
    measure(x, rounded<decltype(type)>(centres), n_centres, 0, n, [&](int64_t row, const double* distances) {
      for (int64_t k = 0; k < n_centres; ++k) to[k * n + row] = std::min(distances[k * kTileRows], least[row]);
    });
  };
  dtype == ScalarType::Float ? run(float{}) : run(double{});
  return closer;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> kmeans_step_cpu(const Tensor& x_in, const Tensor& centres_in,
                                                           const std::optional<Tensor>& weights_in) {
  // Rows of a chunk, which is still in cache when its sums are taken.
  constexpr int64_t kElements = int64_t{1} << 21;
  const ScalarType dtype = check_centres(x_in, centres_in);
  const int64_t n = x_in.size(0), n_centres = centres_in.size(0);
  check_weights(weights_in, n);
  const Tensor x = torch::stable::contiguous(x_in), centres = torch::stable::contiguous(centres_in);
  std::optional<Tensor> weights;
  if (weights_in.has_value()) weights = torch::stable::contiguous(*weights_in);
  Tensor labels = torch::stable::new_empty(x, {n}, ScalarType::Long),
         nearest = torch::stable::new_empty(x, {n}, ScalarType::Double);
  Sums sums(centres);
  int64_t* label = data<int64_t>(labels);
  double* distance = data<double>(nearest);
  const double* weight = weights ? data<double>(*weights) : nullptr;
  const auto run = [&](auto type, auto add) {
    using T = decltype(type);
    const std::vector<T> centre = rounded<T>(centres);
    const int64_t chunk = std::max(kElements / std::max(x.size(1), int64_t{1}), int64_t{64});
    std::vector<Pair> pairs, sorted;
    std::vector<int64_t> places(n_centres + 1);
    for (int64_t start = 0; start < n; start += chunk) {
      const int64_t end = std::min(start + chunk, n);
      pairs.resize(end - start);
      measure(x, centre, n_centres, start, end, [&](int64_t row, const double* distances) {
        int64_t best = 0;
        for (int64_t k = 1; k < n_centres; ++k)
          if (distances[k * kTileRows] < distances[best * kTileRows]) best = k;
        label[row] = best;
        distance[row] = distances[best * kTileRows];
        pairs[row - start] = {row, best, weight ? weight[row] : 1};
      });
      sorted.clear();
      sort_pairs(pairs.data(), end - start, data<double>(sums.counts), places, sorted);
      sums.add(data<T>(x), sorted, add);
    }
  };
  const MixtureKernels& kernels = PYGEN_BEST(kMixture);
  dtype == ScalarType::Float ? run(float{}, kernels.moments_float) : run(double{}, kernels.moments_double);
  return {labels, nearest, sums.counts, sums.first};
}

}  // namespace
}  // namespace pygen

STABLE_TORCH_LIBRARY_IMPL(pygen, CPU, m) {
  m.impl("closer", TORCH_BOX(&pygen::closer_cpu));
  m.impl("kmeans_step", TORCH_BOX(&pygen::kmeans_step_cpu));
}
