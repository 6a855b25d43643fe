// Binds the kernels of full covariances to the operators that pygen/ops defines.
#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "../common.h"
#include "../isa.h"
#include "covariance.h"

namespace pygen {
namespace {

void check_index(const std::optional<Tensor>& index, int64_t bound, const char* expected) {
  if (!index.has_value()) return;
  STD_TORCH_CHECK(index->dim() == 1 && index->scalar_type() == ScalarType::Long, expected);
  for (int64_t i = 0; i < index->size(0); ++i) {
    const int64_t value = data<int64_t>(*index)[i];
    STD_TORCH_CHECK(value >= 0 && value < bound, expected);
  }
}

ScalarType check_rows(const Tensor& x) {
  const ScalarType dtype = x.scalar_type();
  STD_TORCH_CHECK(x.dim() == 2 && (dtype == ScalarType::Float || dtype == ScalarType::Double),
                  "x must be float32 or float64 [N, D]");
  return dtype;
}

std::optional<Tensor> contiguous(const std::optional<Tensor>& tensor) {
  return tensor.has_value() ? std::optional<Tensor>(torch::stable::contiguous(*tensor)) : std::nullopt;
}

// A matrix [size, columns] by panels `width` columns wide, each as high as its lowest entry that is not zero.
template <class T>
std::vector<T> split(const T* matrix, int64_t size, int64_t columns, int width, std::vector<int64_t>& heights) {
  int64_t total = 0;
  for (int64_t begin = 0; begin < columns; begin += width) {
    const int64_t end = std::min(begin + width, columns);
    const auto is_empty = [&](int64_t row) {
      return std::all_of(matrix + row * columns + begin, matrix + row * columns + end, [](T x) { return x == 0; });
    };
    int64_t height = size;
    while (height > 0 && is_empty(height - 1)) --height;
    heights.push_back(height);
    total += height * width;
  }
  std::vector<T> panels(total);
  T* to = panels.data();
  for (size_t panel = 0; panel < heights.size(); ++panel) {
    const int64_t begin = panel * width, count = std::min(begin + width, columns) - begin;
    for (int64_t row = 0; row < heights[panel]; ++row, to += width)
      std::copy_n(matrix + row * columns + begin, count, to);
  }
  return panels;
}

Tensor whitened_norms_cpu(const Tensor& x_in, const Tensor& centre_in, const Tensor& factor_in,
                          const std::optional<Tensor>& features_in, const std::optional<Tensor>& rows_in) {
  constexpr int64_t kGrain = 16;  // groups of rows a thread takes at least
  const ScalarType dtype = check_rows(x_in);
  const Tensor x = torch::stable::contiguous(x_in), centre = torch::stable::contiguous(centre_in),
               factor = torch::stable::contiguous(factor_in);
  const std::optional<Tensor> features = contiguous(features_in), rows = contiguous(rows_in);
  check_index(rows, x.size(0), "rows must be int64 [P] in [0, N)");
  check_index(features, x.size(1), "features must be int64 [C] in [0, D)");
  const int64_t n = rows ? rows->size(0) : x.size(0), size = features ? features->size(0) : x.size(1);
  STD_TORCH_CHECK(centre.dim() == 1 && centre.size(0) == size && centre.scalar_type() == dtype,
                  "centre must be [C] of the dtype of x");
  STD_TORCH_CHECK(factor.dim() == 2 && factor.size(0) == size && factor.scalar_type() == dtype,
                  "factor must be [C, P] of the dtype of x");
  Tensor norms = torch::stable::new_empty(x, {n});
  const CovarianceKernels& kernels = PYGEN_BEST(kCovariance);
  const auto run = [&](auto type, auto kernel, int width) {
    using T = decltype(type);
    std::vector<int64_t> heights;
    const std::vector<T> panels = split(data<T>(factor), size, factor.size(1), width, heights);
    const Whitening<T> whitening = {data<T>(x),
                                    x.size(1),
                                    rows ? data<int64_t>(*rows) : nullptr,
                                    features ? data<int64_t>(*features) : nullptr,
                                    data<T>(centre),
                                    size,
                                    panels.data(),
                                    heights.data(),
                                    static_cast<int64_t>(heights.size()),
                                    data<T>(norms)};
    const int64_t together = kernels.rows;
    torch::stable::parallel_for(0, (n + together - 1) / together, kGrain, [&](int64_t begin, int64_t end) {
      std::vector<T> scratch(size * together);
      kernel(whitening, begin * together, std::min(end * together, n), scratch.data());
    });
  };
  dtype == ScalarType::Float ? run(float{}, kernels.whiten_float, kernels.float_columns)
                             : run(double{}, kernels.whiten_double, kernels.double_columns);
  return norms;
}

// Adds the upper triangle of sums [features, features] to both of total [dims, dims].
void add_symmetric(const std::vector<double>& sums, const std::vector<int64_t>& features, int64_t dims, double* total) {
  constexpr int64_t kTile = 32;  // whole cache lines of either triangle
  const int64_t size = static_cast<int64_t>(features.size());
  for (int64_t top = 0; top < size; top += kTile)
    for (int64_t left = top; left < size; left += kTile)
      for (int64_t i = top; i < std::min(top + kTile, size); ++i)
        for (int64_t j = std::max(left, i); j < std::min(left + kTile, size); ++j) {
          total[features[i] * dims + features[j]] += sums[i * size + j];
          if (j != i) total[features[j] * dims + features[i]] += sums[i * size + j];
        }
}

void add_scatter_cpu(const Tensor& x_in, const Tensor& mean_in, const Tensor& weights_in, Tensor first, Tensor second,
                     const std::optional<Tensor>& rows_in) {
  constexpr int64_t kBlock = 192;  // rows packed together: 1 MB of 784 features
  constexpr int64_t kGrain = 64;   // columns a thread takes at least: whole cache lines of every row
  const ScalarType dtype = check_rows(x_in);
  const Tensor x = torch::stable::contiguous(x_in), mean = torch::stable::contiguous(mean_in),
               weights = torch::stable::contiguous(weights_in);
  const std::optional<Tensor> rows_given = contiguous(rows_in);
  check_index(rows_given, x.size(0), "rows must be int64 [P] in [0, N)");
  const int64_t n = rows_given ? rows_given->size(0) : x.size(0), dims = x.size(1);
  const auto fits = [](const Tensor& tensor, int64_t dim, int64_t size) {
    return tensor.scalar_type() == ScalarType::Double && tensor.dim() == dim && tensor.size(0) == size &&
           tensor.size(dim - 1) == size;
  };
  STD_TORCH_CHECK(fits(weights, 1, n), "weights must be float64, one for each row");
  STD_TORCH_CHECK(fits(mean, 1, dims) && fits(first, 1, dims), "mean and first must be float64 [D]");
  STD_TORCH_CHECK(fits(second, 2, dims), "second must be float64 [D, D]");
  STD_TORCH_CHECK(first.is_contiguous() && second.is_contiguous(), "first and second must be contiguous");
  std::vector<int64_t> rows(n);
  std::vector<double> roots(n);
  for (int64_t i = 0; i < n; ++i) {
    rows[i] = rows_given ? data<int64_t>(*rows_given)[i] : i;
    roots[i] = std::sqrt(data<double>(weights)[i]);
  }
  const CovarianceKernels& kernels = PYGEN_BEST(kCovariance);
  const auto run = [&](auto type, auto varies, auto pack) {
    using T = decltype(type);
    const double* centre = data<double>(mean);
    std::vector<unsigned char> found(dims);
    torch::stable::parallel_for(0, dims, kGrain, [&](int64_t begin, int64_t end) {
      varies(data<T>(x), dims, rows.data(), n, centre, begin, end, found.data());
    });
    std::vector<int64_t> features;
    for (int64_t j = 0; j < dims; ++j)
      if (found[j]) features.push_back(j);
    const int64_t size = static_cast<int64_t>(features.size()), panels = (size + kernels.columns - 1) / kernels.columns;
    std::vector<double> packed(panels * kernels.columns * std::min(n, kBlock)), sums(size * size);
    for (int64_t start = 0; start < n; start += kBlock) {
      const int64_t count = std::min(kBlock, n - start);
      const Scatter<T> block = {data<T>(x), dims,   rows.data() + start, roots.data() + start, count, features.data(),
                                size,       centre, packed.data(),       data<double>(first)};
      torch::stable::parallel_for(0, panels, 1, [&](int64_t begin, int64_t end) {
        for (int64_t panel = begin; panel < end; ++panel) pack(block, panel);
      });
      // A panel from each end: together they are as long as any other two.
      torch::stable::parallel_for(0, (panels + 1) / 2, 1, [&](int64_t begin, int64_t end) {
        for (int64_t panel = begin; panel < end; ++panel) {
          kernels.multiply(packed.data(), count, size, panel, sums.data());
          if (const int64_t other = panels - 1 - panel; other != panel)
            kernels.multiply(packed.data(), count, size, other, sums.data());
        }
      });
    }
    add_symmetric(sums, features, dims, data<double>(second));
  };
  dtype == ScalarType::Float ? run(float{}, kernels.varies_float, kernels.pack_float)
                             : run(double{}, kernels.varies_double, kernels.pack_double);
}

}  // namespace
}  // namespace pygen

STABLE_TORCH_LIBRARY_IMPL(pygen, CPU, m) {
  m.impl("whitened_norms", TORCH_BOX(&pygen::whitened_norms_cpu));
  m.impl("add_scatter", TORCH_BOX(&pygen::add_scatter_cpu));
}
