// Binds the mixture family's kernels to the operators that pygen/ops defines.
#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <vector>

#include "each.h"
#include "few_em.h"
#include "sums.h"

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

std::tuple<Tensor, Tensor, Tensor> moments_cpu(const Tensor& x_in, const Tensor& groups_in, const Tensor& means_in,
                                               const std::optional<Tensor>& weights_in,
                                               const std::optional<Tensor>& rows_in) {
  const ScalarType dtype = check_rows(x_in, means_in);
  const Tensor x = torch::stable::contiguous(x_in), groups = torch::stable::contiguous(groups_in);
  const int64_t components = means_in.size(0);
  STD_TORCH_CHECK(groups.dim() == 1, "groups must be int64 [P]");
  const int64_t n = groups.size(0);
  check(groups, "groups must be int64 [P]", ScalarType::Long, 1, n, 0);
  std::optional<Tensor> weights, rows;
  if (weights_in.has_value()) {
    check(*weights_in, "weights must be float64 [P], as many as groups", ScalarType::Double, 1, n, 0);
    weights = torch::stable::contiguous(*weights_in);
  }
  if (rows_in.has_value()) {
    check(*rows_in, "rows must be int64 [P], as many as groups", ScalarType::Long, 1, n, 0);
    rows = torch::stable::contiguous(*rows_in);
  }
  STD_TORCH_CHECK(rows || n == x.size(0), "groups must be as many as rows of x where rows are not given");
  Sums sums(torch::stable::contiguous(means_in));
  std::vector<Pair> pairs(n), sorted;
  sorted.reserve(n);
  for (int64_t i = 0; i < n; ++i) {
    pairs[i] = {rows ? data<int64_t>(*rows)[i] : i, data<int64_t>(groups)[i], weights ? data<double>(*weights)[i] : 1};
    STD_TORCH_CHECK(pairs[i].row >= 0 && pairs[i].row < x.size(0), "rows must lie in [0, N)");
    STD_TORCH_CHECK(pairs[i].group >= 0 && pairs[i].group < components, "groups must lie in [0, K)");
  }
  const int64_t step = std::max(kSorted, kSortedPerGroup * components);
  std::vector<int64_t> places(components + 1);
  for (int64_t i = 0; i < n; i += step)
    sort_pairs(pairs.data() + i, std::min(step, n - i), data<double>(sums.counts), places, sorted);
  const MixtureKernels& kernels = PYGEN_BEST(kMixture);
  dtype == ScalarType::Float ? sums.add(data<float>(x), sorted, kernels.moments_float)
                             : sums.add(data<double>(x), sorted, kernels.moments_double);
  return {sums.counts, sums.first, sums.second};
}

template <class T>
std::vector<T> rounded(const Tensor& tensor) {
  const double* from = data<double>(tensor);
  return std::vector<T>(from, from + tensor.numel());
}

// The mean of the means [components, dims].
template <class T>
std::vector<T> centre_of(const Tensor& means) {
  const int64_t components = means.size(0), dims = means.size(1);
  std::vector<double> sums(dims);
  for (int64_t i = 0; i < components * dims; ++i) sums[i % dims] += data<double>(means)[i] / components;
  return std::vector<T>(sums.begin(), sums.end());
}

// The means less the centre.
template <class T>
std::vector<T> about(const Tensor& means, const std::vector<T>& centre) {
  std::vector<T> moved(means.numel());
  for (size_t i = 0; i < moved.size(); ++i)
    moved[i] = static_cast<T>(data<double>(means)[i] - centre[i % centre.size()]);
  return moved;
}

// Gaussians with independent features as the kernels take them, from tensors that are checked.
template <class T>
struct Parameters {
  Parameters(const Tensor& x, const Tensor& means_in, const Tensor& precisions_in, const Tensor& constant_in,
             bool settle)
      : x(torch::stable::contiguous(x)),
        means(torch::stable::contiguous(means_in)),
        precisions(torch::stable::contiguous(precisions_in)),
        constant(torch::stable::contiguous(constant_in)),
        centre(centre_of<T>(means)),
        mean(about<T>(means, centre)),
        precision(rounded<T>(precisions)),
        kernel{data<T>(this->x),
               centre.data(),
               mean.data(),
               precision.data(),
               data<double>(means),
               data<double>(precisions),
               data<double>(constant),
               x.size(0),
               means.size(0),
               means.size(1),
               settle} {}

  const Tensor x, means, precisions, constant;
  const std::vector<T> centre, mean, precision;
  const Diagonal<T> kernel;
};

// The same for kernels that take few features; keeps the tensors.
template <class T>
struct FewParameters {
  FewParameters(const Tensor& x, const Tensor& means, const Tensor& precisions, const Tensor& constant)
      : x(torch::stable::contiguous(x)),
        means(torch::stable::contiguous(means)),
        precisions(torch::stable::contiguous(precisions)),
        constant(torch::stable::contiguous(constant)),
        kernel{data<T>(this->x),
               data<double>(this->means),
               data<double>(this->precisions),
               data<double>(this->constant),
               x.size(0),
               means.size(0),
               means.size(1)} {}

  const Tensor x, means, precisions, constant;
  const Few<T> kernel;
};

constexpr int64_t kScreenedComponents = 3;  // from which on bounds pay

// Some columns of the parameters, spread over the row: on MNIST a sixth of them shows of 96 components in 100 that they
// do not matter to a row.
template <class T>
struct Screening {
  explicit Screening(const Diagonal<T>& a) {
    constexpr int64_t kLanes = 64 / sizeof(T);
    const int64_t number = a.dims / 6, stride = (a.components + kLanes - 1) / kLanes * kLanes;
    means.resize(number * stride);
    precisions.resize(number * stride);
    constant.resize(stride, -HUGE_VAL);
    for (int64_t i = 0; i < number; ++i) {
      columns.push_back(i * (a.dims - 1) / (number - 1));
      for (int64_t k = 0; k < a.components; ++k) {
        means[i * stride + k] = a.means[k * a.dims + columns[i]];
        precisions[i * stride + k] = a.precisions[k * a.dims + columns[i]];
      }
    }
    for (int64_t k = 0; k < a.components; ++k)
      constant[k] = static_cast<T>(a.constant[k] * (a.constant[k] > 0 ? 1 + kSlack : 1 - kSlack));
    screen = {columns.data(), means.data(), precisions.data(), constant.data(), number, stride};
  }

  std::vector<int64_t> columns;
  std::vector<T> means, precisions, constant;
  Screen<T> screen;
};

// The Gaussians with their bounds, where these pay.
template <class T>
Diagonal<T> screened(Diagonal<T> gaussians, std::optional<Screening<T>>& screening) {
  if (gaussians.dims >= kScreenedColumns && gaussians.components >= kScreenedComponents)
    gaussians.screen = &screening.emplace(gaussians).screen;
  return gaussians;
}

// Doubles that the kernels work with.
template <class T>
int64_t scratch_size(const Diagonal<T>& a) {
  return (a.components + a.dims + (a.screen ? a.screen->stride : 0)) * kTileRows;
}

ScalarType check_diagonal(const Tensor& x, const Tensor& means, const Tensor& precisions, const Tensor& constant) {
  const ScalarType dtype = check_rows(x, means);
  const int64_t components = means.size(0);
  STD_TORCH_CHECK(components > 0, "means must have a component");
  check(precisions, "precisions must be float64 [K, D] as means are", ScalarType::Double, 2, components, means.size(1));
  check(constant, "constant must be float64 [K], as many as means", ScalarType::Double, 1, components, 0);
  return dtype;
}

std::tuple<Tensor, Tensor> diagonal_log_joint_cpu(const Tensor& x, const Tensor& means, const Tensor& precisions,
                                                  const Tensor& constant, bool settle, bool /*fast*/) {
  constexpr int64_t kGrain = 8;  // tiles a thread takes at least: some 100 us of work
  const ScalarType dtype = check_diagonal(x, means, precisions, constant);
  const int64_t n = x.size(0), components = means.size(0);
  Tensor relative = torch::stable::new_empty(x, {components, n}, dtype);
  Tensor largest = torch::stable::new_empty(x, {n}, ScalarType::Double);
  const auto run = [&](auto type, auto kernel) {
    using T = decltype(type);
    const auto over_tiles = [&](const auto& gaussians, auto log_joint, int64_t scratch_size) {
      torch::stable::parallel_for(0, (n + kTileRows - 1) / kTileRows, kGrain, [&](int64_t begin, int64_t end) {
        std::vector<double> scratch(scratch_size);
        log_joint(gaussians, begin * kTileRows, std::min(end * kTileRows, n), scratch.data(), data<T>(relative),
                  data<double>(largest));
      });
    };
    if (const FewKernels<T>* kernels = few<T>(false, components, x.size(1))) {
      const FewParameters<T> parameters(x, means, precisions, constant);
      over_tiles(parameters.kernel, kernels->log_joint, kernels->sizes(parameters.kernel).scratch);
    } else {
      const Parameters<T> parameters(x, means, precisions, constant, settle);
      over_tiles(parameters.kernel, kernel, scratch_size(parameters.kernel));
    }
  };
  const MixtureKernels& kernels = PYGEN_BEST(kMixture);
  dtype == ScalarType::Float ? run(float{}, kernels.log_joint_float) : run(double{}, kernels.log_joint_double);
  return {relative, largest};
}

// Rows of a block: their pairs are written together, and whether bounds pay is found out anew.
constexpr int64_t kBlock = 8 * kTileRows;

std::tuple<Tensor, Tensor> diagonal_log_density_cpu(const Tensor& x, const Tensor& means, const Tensor& precisions,
                                                    const Tensor& constant, bool fast) {
  const ScalarType dtype = check_diagonal(x, means, precisions, constant);
  const int64_t n = x.size(0);
  Tensor log_density = torch::stable::new_empty(x, {n}, ScalarType::Double);
  Tensor component = torch::stable::new_empty(x, {n}, ScalarType::Long);
  const auto run = [&](auto type, auto kernel) {
    using T = decltype(type);
    const auto over_blocks = [&](const auto& gaussians, auto log_density_of, int64_t scratch_size) {
      torch::stable::parallel_for(0, (n + kBlock - 1) / kBlock, 1, [&](int64_t begin, int64_t end) {
        std::vector<double> scratch(scratch_size);
        for (int64_t start = begin * kBlock; start < std::min(end * kBlock, n); start += kBlock)
          log_density_of(gaussians, start, std::min(start + kBlock, n), scratch.data(), data<double>(log_density),
                         data<int64_t>(component));
      });
    };
    if (const FewKernels<T>* kernels = few<T>(false, means.size(0), x.size(1))) {
      const FewParameters<T> parameters(x, means, precisions, constant);
      over_blocks(parameters.kernel, kernels->log_density, kernels->sizes(parameters.kernel).scratch);
    } else {
      const Parameters<T> parameters(x, means, precisions, constant, !fast);
      std::optional<Screening<T>> screening;
      const Diagonal<T> gaussians = screened(parameters.kernel, screening);
      over_blocks(gaussians, kernel, scratch_size(gaussians));
    }
  };
  const MixtureKernels& kernels = PYGEN_BEST(kMixture);
  dtype == ScalarType::Float ? run(float{}, kernels.log_density_float) : run(double{}, kernels.log_density_double);
  return {log_density, component};
}

template <class T>
double diagonal_em(const Diagonal<T>& a, const double* weights, Posterior<T> posterior, AddMoments<T> add, Sums& sums) {
  // Rows of a chunk, which is still in cache when its moments are taken and whose pairs take a few MB at most.
  constexpr int64_t kElements = int64_t{1} << 21, kPairs = int64_t{1} << 18;
  const int64_t limit = std::min(kElements / std::max(a.dims, int64_t{1}), kPairs / a.components);
  const int64_t blocks = std::min(std::max(limit / kBlock, int64_t{1}), (a.n + kBlock - 1) / kBlock);
  const int64_t capacity = kBlock * a.components;
  // Not touched as a whole: most rows have one pair.
  const std::unique_ptr<Pair[]> pairs(new Pair[blocks * capacity]);
  std::vector<int64_t> sizes(blocks), places(a.components + 1);
  std::vector<double> log_likelihoods(blocks);
  std::vector<Pair> chunk, sorted;
  double log_likelihood = 0;
  for (int64_t start = 0; start < a.n; start += blocks * kBlock) {
    const int64_t count = std::min(blocks, (a.n - start + kBlock - 1) / kBlock);
    torch::stable::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
      std::vector<double> scratch(scratch_size(a));
      for (int64_t block = begin; block < end; ++block) {
        const int64_t row = start + block * kBlock;
        log_likelihoods[block] = 0;
        sizes[block] = posterior(a, row, std::min(row + kBlock, a.n), weights, scratch.data(),
                                 pairs.get() + block * capacity, &log_likelihoods[block]);
      }
    });
    chunk.clear();
    sorted.clear();
    for (int64_t block = 0; block < count; ++block) {
      const Pair* first = pairs.get() + block * capacity;
      chunk.insert(chunk.end(), first, first + sizes[block]);
      log_likelihood += log_likelihoods[block];
    }
    sort_pairs(chunk.data(), static_cast<int64_t>(chunk.size()), data<double>(sums.counts), places, sorted);
    sums.add(a.x, sorted, add);
  }
  return log_likelihood;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> diagonal_em_cpu(const Tensor& x, const Tensor& means,
                                                           const Tensor& precisions, const Tensor& constant,
                                                           const std::optional<Tensor>& weights_in, bool fast) {
  const ScalarType dtype = check_diagonal(x, means, precisions, constant);
  std::optional<Tensor> weights;
  if (weights_in.has_value()) {
    check(*weights_in, "sample_weight must be float64 [N], as many as rows of x", ScalarType::Double, 1, x.size(0), 0);
    weights = torch::stable::contiguous(*weights_in);
  }
  Sums sums(torch::stable::contiguous(means));
  Tensor log_likelihood = torch::stable::new_empty(means, {});
  const auto run = [&](auto type, auto posterior, auto moments) {
    using T = decltype(type);
    const double* weight = weights ? data<double>(*weights) : nullptr;
    if (const FewKernels<T>* kernels = few<T>(false, means.size(0), x.size(1))) {
      const FewParameters<T> parameters(x, means, precisions, constant);
      *data<double>(log_likelihood) = few_em(*kernels, parameters.kernel, weight, data<double>(sums.counts),
                                             data<double>(sums.first), data<double>(sums.second));
    } else {
      const Parameters<T> parameters(x, means, precisions, constant, !fast);
      std::optional<Screening<T>> screening;
      const Diagonal<T> gaussians = screened(parameters.kernel, screening);
      *data<double>(log_likelihood) = diagonal_em<T>(gaussians, weight, posterior, moments, sums);
    }
  };
  const MixtureKernels& kernels = PYGEN_BEST(kMixture);
  dtype == ScalarType::Float ? run(float{}, kernels.posterior_float, kernels.moments_float)
                             : run(double{}, kernels.posterior_double, kernels.moments_double);
  return {sums.counts, sums.first, sums.second, log_likelihood};
}

EmSums diagonal_em_of_each_cpu(const Tensor& x, const Tensor& means, const Tensor& precisions, const Tensor& constant,
                               const std::vector<int64_t>& ranges, const std::optional<Tensor>& weights, bool fast) {
  return em_of_each(x, means, precisions, constant, ranges, weights, fast, diagonal_em_cpu);
}

Tensor count_categories_cpu(const Tensor& x_in, const Tensor& index_in, const std::optional<Tensor>& weights_in,
                            int64_t classes, int64_t categories) {
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
    torch::stable::parallel_for(0, dims, kColumns,
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
  m.impl("diagonal_log_density", TORCH_BOX(&pygen::diagonal_log_density_cpu));
  m.impl("diagonal_em", TORCH_BOX(&pygen::diagonal_em_cpu));
  m.impl("diagonal_em_of_each", TORCH_BOX(&pygen::diagonal_em_of_each_cpu));
}
