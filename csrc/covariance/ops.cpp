// Binds the kernels of one covariance to the operators that pygen/ops defines.
#include <cmath>
#include <optional>

#include "../isa.h"
#include "../items.h"
#include "../large_pages.h"
#include "blocks.h"

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

std::vector<int64_t> numbers(const std::optional<Tensor>& index, int64_t n) {
  if (!index.has_value()) return range(n);
  return std::vector<int64_t>(data<int64_t>(*index), data<int64_t>(*index) + n);
}

Tensor whitened_norms_cpu(const Tensor& x_in, const Tensor& centre_in, const Tensor& factor_in,
                          const std::optional<Tensor>& features_in, const std::optional<Tensor>& rows_in,
                          bool /*fast*/) {
  constexpr int64_t kGrain = 16;  // tiles a thread takes at least
  const ScalarType dtype = check_rows(x_in);
  const Tensor x = torch::stable::contiguous(x_in), centre = torch::stable::contiguous(centre_in),
               factor = torch::stable::contiguous(factor_in);
  const std::optional<Tensor> features_given = contiguous(features_in), rows_given = contiguous(rows_in);
  check_index(rows_given, x.size(0), "rows must be int64 [P] in [0, N)");
  check_index(features_given, x.size(1), "features must be int64 [C] in [0, D)");
  const int64_t n = rows_given ? rows_given->size(0) : x.size(0), dims = x.size(1),
                size = features_given ? features_given->size(0) : dims;
  STD_TORCH_CHECK(centre.dim() == 1 && centre.size(0) == size && centre.scalar_type() == dtype,
                  "centre must be [C] of the dtype of x");
  STD_TORCH_CHECK(factor.dim() == 2 && factor.size(0) == size && factor.scalar_type() == dtype,
                  "factor must be [C, P] of the dtype of x");
  Tensor norms = torch::stable::new_empty(x, {n});
  const CovarianceKernels& kernels = PYGEN_BEST(kCovariance);
  const std::vector<int64_t> features = numbers(features_given, size), rows = numbers(rows_given, n);
  const auto run = [&](auto type) {
    using T = decltype(type);
    const RowKernels<T>& typed = of<T>(kernels);
    Panels<T> panels;
    split(data<T>(factor), factor.size(1), range(size), range(factor.size(1)), typed.columns, panels);
    const Features<T> chosen = {features.data(), data<T>(centre), size};
    const Whitening<T> whitening = {panels.values.data(), panels.heights.data(),
                                    static_cast<int64_t>(panels.heights.size())};
    const int64_t tile_rows = kernels.rows;
    torch::stable::parallel_for(0, (n + tile_rows - 1) / tile_rows, kGrain, [&](int64_t begin, int64_t end) {
      std::vector<T> tile(size * tile_rows);
      std::vector<double> sums(tile_rows);
      for (int64_t start = begin * tile_rows; start < std::min(end * tile_rows, n); start += tile_rows) {
        const int64_t count = std::min(tile_rows, n - start);
        typed.gather(data<T>(x), dims, nullptr, chosen, rows.data() + start, count, tile.data());
        std::fill(sums.begin(), sums.end(), 0);
        typed.whiten(whitening, tile.data(), sums.data());
        std::copy_n(sums.begin(), count, data<T>(norms) + start);
      }
    });
  };
  dtype == ScalarType::Float ? run(float{}) : run(double{});
  return norms;
}

void add_scatter_cpu(const Tensor& x_in, const Tensor& mean_in, const Tensor& weights_in, Tensor first, Tensor second,
                     const std::optional<Tensor>& rows_in) {
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
  const std::vector<int64_t> rows = numbers(rows_given, n);
  std::vector<double> roots(n);
  std::transform(data<double>(weights), data<double>(weights) + n, roots.begin(),
                 [](double w) { return std::sqrt(w); });
  const auto run = [&](auto type) {
    using T = decltype(type);
    scatter(PYGEN_BEST(kCovariance), data<T>(x), dims, rows.data(), roots.data(), n, data<double>(mean), true,
            data<double>(first), data<double>(second));
  };
  dtype == ScalarType::Float ? run(float{}) : run(double{});
}

// Writes U with U U^T the inverse of a symmetric matrix [dims, dims]; false, and anything, where it is not positive
// definite.
bool invert(const CovarianceKernels& kernels, const double* matrix, int64_t dims, double* inverse) {
  constexpr int64_t kGrain = 4;  // panels a thread takes at least
  constexpr int64_t kTile = 32;  // rows that stay in cache while they are written as columns
  // Features that depend on no other, such as pixels that are always black, need no matrix algebra.
  std::vector<int64_t> features;
  for (int64_t i = 0; i < dims; ++i) {
    const double *row = matrix + i * dims, variance = row[i];
    if (!(variance > 0 && std::isfinite(variance))) return false;
    const auto links = [](double x) { return x != 0; };
    if (std::any_of(row, row + i, links) || std::any_of(row + i + 1, row + dims, links))
      features.push_back(i);
    else {
      std::fill_n(inverse + i * dims, dims, 0);
      inverse[i * dims + i] = 1 / std::sqrt(variance);
    }
  }
  const int64_t width = kernels.columns, size = static_cast<int64_t>(features.size()), n = (size + width - 1) / width,
                block = width * width;
  // The matrix beside the identity, each triangle by panels; what fills the last of them is an identity, too.
  std::vector<double> values(block * n * (n + 1));
  std::vector<Panel> panels(2 * n);
  double* next = values.data();
  for (int64_t p = 0; p < n; ++p) {
    panels[p] = {next, 0};
    const int64_t begin = p * width, end = std::min(begin + width, size);
    for (int64_t i = 0; i < end; ++i) {
      const double* row = matrix + features[i] * dims;
      for (int64_t j = begin; j < end; ++j) next[i * width + j - begin] = row[features[j]];
    }
    for (int64_t i = end; i < begin + width; ++i) next[i * width + i - begin] = 1;
    next += (p + 1) * block;
  }
  for (int64_t p = 0; p < n; ++p) {
    panels[n + p] = {next, p * width};
    for (int64_t i = 0; i < width; ++i) next[i * width + i] = 1;
    next += (n - p) * block;
  }
  std::vector<double> reciprocals(width);
  for (int64_t row = 0; row < n; ++row) {
    if (!kernels.factor(panels.data(), row, reciprocals.data())) return false;
    // To the right of the diagonal block, and the identity's as far as they are not zero: n panels.
    torch::stable::parallel_for(row + 1, row + 1 + n, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t column = begin; column < end; ++column)
        kernels.eliminate(panels.data(), row, column, reciprocals.data());
    });
  }
  // R^-1 is the transpose of what the identity has become.
  for (int64_t p = 0; p < n; ++p) {
    const Panel& panel = panels[n + p];
    const int64_t begin = panel.start, end = std::min(begin + width, size);
    for (int64_t i = begin; i < end; ++i) std::fill_n(inverse + features[i] * dims, dims, 0);
    for (int64_t top = begin; top < size; top += kTile)
      for (int64_t i = begin; i < end; ++i)
        for (int64_t row = std::max(top, i); row < std::min(top + kTile, size); ++row)
          inverse[features[i] * dims + features[row]] = panel.values[(row - begin) * width + i - begin];
  }
  return true;
}

std::tuple<Tensor, Tensor> inverse_factors_cpu(const Tensor& matrices_in) {
  STD_TORCH_CHECK(matrices_in.dim() == 3 && matrices_in.scalar_type() == ScalarType::Double &&
                      matrices_in.size(1) == matrices_in.size(2),
                  "matrices must be float64 [K, D, D]");
  const Tensor matrices = torch::stable::contiguous(matrices_in);
  const int64_t number = matrices.size(0), dims = matrices.size(1);
  Tensor factors = torch::stable::empty_like(matrices);
  prefer_large_pages(factors);
  Tensor positive = torch::stable::new_empty(matrices, {number}, ScalarType::Bool);
  const CovarianceKernels& kernels = PYGEN_BEST(kCovariance);
  over_items(number, [&](int64_t k) {
    double* factor = data<double>(factors) + k * dims * dims;
    data<bool>(positive)[k] = invert(kernels, data<double>(matrices) + k * dims * dims, dims, factor);
    if (!data<bool>(positive)[k]) std::fill_n(factor, dims * dims, 0);
  });
  return {factors, positive};
}

}  // namespace
}  // namespace pygen

STABLE_TORCH_LIBRARY_IMPL(pygen, CPU, m) {
  m.impl("whitened_norms", TORCH_BOX(&pygen::whitened_norms_cpu));
  m.impl("add_scatter", TORCH_BOX(&pygen::add_scatter_cpu));
  m.impl("inverse_factors", TORCH_BOX(&pygen::inverse_factors_cpu));
}
