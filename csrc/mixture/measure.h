// Distances of rows from centres, as the bindings of k-means take them.
#pragma once
#include <algorithm>
#include <optional>
#include <vector>

#include "../common.h"
#include "../isa.h"
#include "mixture.h"

namespace pygen {

inline ScalarType check_centres(const Tensor& x, const Tensor& centres) {
  const ScalarType dtype = x.scalar_type();
  STD_TORCH_CHECK(x.dim() == 2 && (dtype == ScalarType::Float || dtype == ScalarType::Double),
                  "x must be float32 or float64 [N, D]");
  STD_TORCH_CHECK(centres.dim() == 2 && centres.scalar_type() == ScalarType::Double && centres.size(0) > 0 &&
                      centres.size(1) == x.size(1),
                  "centres must be float64 [K, D] with the D of x");
  return dtype;
}

inline bool is_vector(const Tensor& tensor, int64_t n) {
  return tensor.scalar_type() == ScalarType::Double && tensor.dim() == 1 && tensor.size(0) == n;
}

inline void check_weights(const std::optional<Tensor>& weights, int64_t n) {
  STD_TORCH_CHECK(!weights.has_value() || is_vector(*weights, n), "weights must be float64 [N]");
}

template <class T>
Distances<T> distances_kernel();
template <>
inline Distances<float> distances_kernel() {
  return PYGEN_BEST(kMixture).distances_float;
}
template <>
inline Distances<double> distances_kernel() {
  return PYGEN_BEST(kMixture).distances_double;
}

// Gives `each` every row of [begin, end) with its squared distances from the centres, [K] every kTileRows.
template <class T, class Each>
void measure(const Tensor& x, const std::vector<T>& centres, int64_t n_centres, int64_t begin, int64_t end,
             const Each& each) {
  constexpr int64_t kGrain = 8;  // tiles a thread takes at least: some 100 us of work
  const Distances<T> kernel = distances_kernel<T>();
  const int64_t dims = x.size(1);
  torch::stable::parallel_for(0, (end - begin + kTileRows - 1) / kTileRows, kGrain, [&](int64_t first, int64_t last) {
    std::vector<double> distances(n_centres * kTileRows);
    for (int64_t row = begin + first * kTileRows; row < std::min(begin + last * kTileRows, end); row += kTileRows) {
      const int64_t n = std::min<int64_t>(kTileRows, end - row);
      kernel(data<T>(x) + row * dims, n, dims, centres.data(), n_centres, distances.data());
      for (int64_t i = 0; i < n; ++i) each(row + i, distances.data() + i);
    }
  });
}

}  // namespace pygen
