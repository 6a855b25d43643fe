// Mixtures with full covariances on the CPU: log-densities, and a pass of EM, which asks who is responsible for which
// rows and sums over them.
#include <cmath>
#include <optional>

#include "../isa.h"
#include "../items.h"
#include "../large_pages.h"
#include "../mixture/each.h"
#include "../mixture/few_em.h"
#include "../pair.h"
#include "blocks.h"

namespace pygen {
namespace {

// A part of the squares bounds a density from above. Columns of a factor by stages: a first few tell most components
// from the best, more tell most of the rest, and all are needed for one or two components a row. They are spread over
// the features, since each tells how far a pixel is from what the pixels before it predict. The numbers, shares of all
// columns in whole panels, are those that cost least on MNIST.
constexpr int kStages = 3;
constexpr int64_t kFirstShare = 16, kSecondShare = 4;
constexpr int64_t kPrunedFrom = 256;  // features from which on the bounds pay

// Features with their centre.
template <class T>
struct Centred {
  std::vector<int64_t> features;
  std::vector<T> centre;
  Features<T> view() const { return {features.data(), centre.data(), static_cast<int64_t>(features.size())}; }
};

// A component as the kernels take it: `stages` point into the panels.
template <class T>
struct Gaussian {
  Centred<T> coupled, free;  // features that depend on others, and those that do not
  std::vector<T> free_precisions;
  Panels<T> panels[kStages];
  Whitening<T> stages[kStages];
  double constant;
  int known;  // stages until the norm is known
};

// Which of `size` columns belong to which stage.
void choose(int64_t size, int width, bool pruned, std::vector<int64_t> (&columns)[kStages]) {
  std::vector<int> stage(size, pruned ? kStages - 1 : 0);
  if (pruned) {
    int64_t taken = 0;
    for (int s = 0; s < kStages - 1; ++s) {
      const int64_t number = std::max(size / (s == 0 ? kFirstShare : kSecondShare) / width, int64_t{1 + s}) * width;
      // Evenly, up to the last column; where a stage before has one already, the next before it that is free.
      for (int64_t i = 1; i <= number - taken; ++i) {
        int64_t column = i * size / (number - taken) - 1;
        while (column >= 0 && stage[column] < kStages - 1) --column;
        if (column >= 0) stage[column] = s;
      }
      taken = number;
    }
  }
  for (int64_t column = 0; column < size; ++column) columns[stage[column]].push_back(column);
}

template <class T>
void prepare(const double* factor, const double* mean, const double* centre, int64_t dims, double constant, int width,
             bool pruned, Gaussian<T>& to) {
  std::vector<unsigned char> linked(dims);
  for (int64_t i = 0; i < dims; ++i) {
    unsigned char any = 0;
    for (int64_t j = i + 1; j < dims; ++j) {
      const unsigned char is = factor[i * dims + j] != 0;
      linked[j] |= is;
      any |= is;
    }
    linked[i] |= any;
  }
  for (int64_t j = 0; j < dims; ++j) {
    Centred<T>& of = linked[j] ? to.coupled : to.free;
    of.features.push_back(j);
    of.centre.push_back(static_cast<T>(mean[j] - centre[j]));
    if (!linked[j]) to.free_precisions.push_back(static_cast<T>(factor[j * dims + j] * factor[j * dims + j]));
  }
  const std::vector<int64_t>& coupled = to.coupled.features;
  const int64_t size = static_cast<int64_t>(coupled.size());
  pruned = pruned && size >= kPrunedFrom;
  std::vector<int64_t> columns[kStages];
  choose(size, width, pruned, columns);
  for (int s = 0; s < kStages; ++s) {
    for (int64_t& column : columns[s]) column = coupled[column];
    split(factor, dims, coupled, columns[s], width, to.panels[s]);
    to.stages[s] = {to.panels[s].values.data(), to.panels[s].heights.data(),
                    static_cast<int64_t>(to.panels[s].heights.size())};
  }
  to.constant = constant;
  to.known = pruned ? kStages : 1;
}

template <class T>
struct Rows {
  const T* x;
  int64_t dims;
  const T* centre;
  const double* weights;  // null: 1
};

// The posterior of a chunk of rows. joint [components, n] holds upper bounds of log joint densities until all stages
// are done.
template <class T>
class Chunk {
 public:
  Chunk(const CovarianceKernels& kernels, const std::vector<Gaussian<T>>& gaussians, const Rows<T>& rows, int64_t begin,
        int64_t n)
      : kernels_(of<T>(kernels)),
        tile_rows_(kernels.rows),
        gaussians_(gaussians),
        components_(static_cast<int64_t>(gaussians.size())),
        rows_(rows),
        begin_(begin),
        n_(n),
        joint_(components_ * n),
        done_(components_ * n, 1),
        tile_(rows.dims * tile_rows_ + kTilePadding / sizeof(T)),
        norms_(tile_rows_) {}

  // Appends the pairs that matter, by row, and gives the log-likelihood.
  double posterior(std::vector<Pair>& pairs, bool pruned) {
    bound();
    if (pruned) settle();
    double log_likelihood = 0;
    for (int64_t i = 0; i < n_; ++i) {
      const double weight = rows_.weights ? rows_.weights[begin_ + i] : 1;
      log_likelihood += weight * bayes(i, weight, pairs);
    }
    return log_likelihood;
  }

  // The rows' log-densities and most probable components.
  void log_density(bool pruned, double* density, int64_t* component) {
    bound();
    if (pruned) settle();
    for (int64_t i = 0; i < n_; ++i) {
      const int64_t best = argmax(i);
      const double top = joint_[best * n_ + i];
      double total = 0;
      for (int64_t k = 0; k < components_; ++k) {
        const double relative = joint_[k * n_ + i] - top;
        if (relative > kLogNegligible) total += std::exp(relative);
      }
      density[i] = top + std::log(total);
      component[i] = best;
    }
  }

 private:
  int64_t argmax(int64_t i) const {
    int64_t best = 0;
    for (int64_t k = 1; k < components_; ++k)
      if (joint_[k * n_ + i] > joint_[best * n_ + i]) best = k;
    return best;
  }

  bool known(int64_t k, int64_t i) const { return done_[k * n_ + i] >= gaussians_[k].known; }

  // The first stage of all components, for all rows.
  void bound() {
    std::vector<T> all(rows_.dims * tile_rows_ + kTilePadding / sizeof(T));
    const Centred<T> everything = {range(rows_.dims), std::vector<T>(rows_.dims)};
    std::vector<int64_t> rows(tile_rows_);
    for (int64_t start = 0; start < n_; start += tile_rows_) {
      const int64_t count = std::min<int64_t>(tile_rows_, n_ - start);
      std::iota(rows.begin(), rows.end(), begin_ + start);
      kernels_.gather(rows_.x, rows_.dims, rows_.centre, everything.view(), rows.data(), count, all.data());
      for (int64_t k = 0; k < components_; ++k) {
        const Gaussian<T>& gaussian = gaussians_[k];
        std::fill(norms_.begin(), norms_.end(), 0);
        kernels_.scale(all.data(), gaussian.free.view(), gaussian.free_precisions.data(), norms_.data());
        kernels_.choose(all.data(), gaussian.coupled.view(), tile_.data());
        kernels_.whiten(gaussian.stages[0], tile_.data(), norms_.data());
        for (int64_t i = 0; i < count; ++i) joint_[k * n_ + start + i] = gaussian.constant - 0.5 * norms_[i];
      }
    }
  }

  // The next stage of the component with the largest bound of a row, until that is known; then of all that may matter
  // beside it.
  void settle() {
    std::vector<int64_t> open(n_);
    std::iota(open.begin(), open.end(), int64_t{0});
    std::vector<std::vector<int64_t>> wanted(components_ * kStages);  // rows by component and stage
    while (!open.empty()) {
      const auto want = [&](int64_t k, int64_t i) {
        const bool wants = !known(k, i);
        if (wants) wanted[k * kStages + done_[k * n_ + i]].push_back(begin_ + i);
        return wants;
      };
      const auto is_settled = [&](int64_t i) {
        const int64_t best = argmax(i);
        if (want(best, i)) return false;
        bool settled = true;
        for (int64_t k = 0; k < components_; ++k)
          if (joint_[k * n_ + i] > joint_[best * n_ + i] + kLogNegligible && want(k, i)) settled = false;
        return settled;
      };
      open.erase(std::remove_if(open.begin(), open.end(), is_settled), open.end());
      for (int64_t k = 0; k < components_; ++k)
        for (int s = 1; s < kStages; ++s) {
          refine(k, s, wanted[k * kStages + s]);
          wanted[k * kStages + s].clear();
        }
    }
  }

  void refine(int64_t k, int stage, const std::vector<int64_t>& rows) {
    const Gaussian<T>& gaussian = gaussians_[k];
    for (size_t start = 0; start < rows.size(); start += tile_rows_) {
      const int64_t count = std::min<int64_t>(tile_rows_, rows.size() - start);
      kernels_.gather(rows_.x, rows_.dims, rows_.centre, gaussian.coupled.view(), rows.data() + start, count,
                      tile_.data());
      std::fill(norms_.begin(), norms_.end(), 0);
      kernels_.whiten(gaussian.stages[stage], tile_.data(), norms_.data());
      for (int64_t i = 0; i < count; ++i) {
        const int64_t place = k * n_ + rows[start + i] - begin_;
        joint_[place] -= 0.5 * norms_[i];
        ++done_[place];
      }
    }
  }

  // Bayes' rule for a row; gives its log-density.
  double bayes(int64_t i, double weight, std::vector<Pair>& pairs) {
    const double top = joint_[argmax(i) * n_ + i];
    const size_t first = pairs.size();
    double total = 0;
    for (int64_t k = 0; k < components_; ++k) {
      const double relative = joint_[k * n_ + i] - top;
      if (!(relative > kLogNegligible)) continue;
      pairs.push_back({begin_ + i, k, std::exp(relative)});
      total += pairs.back().weight;
    }
    for (size_t pair = first; pair < pairs.size(); ++pair) pairs[pair].weight *= weight / total;
    return top + std::log(total);
  }

  const RowKernels<T>& kernels_;
  const int tile_rows_;
  const std::vector<Gaussian<T>>& gaussians_;
  const int64_t components_;
  const Rows<T> rows_;
  const int64_t begin_, n_;
  std::vector<double> joint_;
  std::vector<unsigned char> done_;
  std::vector<T> tile_;
  std::vector<double> norms_;
};

// Rows of a chunk: enough for whole tiles of each component.
int64_t chunk_of(int64_t components) {
  constexpr int64_t kElements = int64_t{1} << 16, kLeast = 96, kMost = 2048;
  return std::clamp(kElements / components, kLeast, kMost);
}

// Rows by component, with the roots of their weights.
struct Members {
  std::vector<int64_t> rows;
  std::vector<double> roots;
};

template <class T>
double full_em(const CovarianceKernels& kernels, const std::vector<Gaussian<T>>& gaussians, const Rows<T>& rows,
               int64_t n, bool pruned, const double* means, double* counts, double* first, double* second) {
  // Chunks of a round, which may be taken side by side, and pairs from which on they enter the sums: a few ten MB at
  // most.
  constexpr int64_t kRound = 16, kPairs = int64_t{1} << 19;
  const int64_t components = static_cast<int64_t>(gaussians.size()), dims = rows.dims;
  const int64_t chunk = chunk_of(components), chunks = (n + chunk - 1) / chunk;
  std::vector<std::vector<Pair>> pairs(kRound);
  std::vector<double> log_likelihoods(kRound);
  std::vector<Members> members(components);
  double log_likelihood = 0;
  int64_t waiting = 0;
  bool added = false;
  for (int64_t round = 0; round < chunks; round += kRound) {
    const int64_t number = std::min(kRound, chunks - round);
    over_items(number, [&](int64_t i) {
      const int64_t start = (round + i) * chunk;
      pairs[i].clear();
      Chunk<T> part(kernels, gaussians, rows, start, std::min(chunk, n - start));
      log_likelihoods[i] = part.posterior(pairs[i], pruned);
    });
    for (int64_t i = 0; i < number; ++i) {
      log_likelihood += log_likelihoods[i];
      waiting += static_cast<int64_t>(pairs[i].size());
      for (const Pair& pair : pairs[i]) {
        counts[pair.group] += pair.weight;
        members[pair.group].rows.push_back(pair.row);
        members[pair.group].roots.push_back(std::sqrt(pair.weight));
      }
    }
    if (waiting < kPairs && round + number < chunks) continue;
    over_items(components, [&](int64_t k) {
      Members& own = members[k];
      scatter(kernels, rows.x, dims, own.rows.data(), own.roots.data(), static_cast<int64_t>(own.rows.size()),
              means + k * dims, added, first + k * dims, second + k * dims * dims);
      own.rows.clear();
      own.roots.clear();
    });
    waiting = 0;
    added = true;
  }
  if (!added) std::fill_n(second, components * dims * dims, 0.0);  // no rows
  return log_likelihood;
}

bool fits(const Tensor& tensor, std::initializer_list<int64_t> shape) {
  if (tensor.scalar_type() != ScalarType::Double || tensor.dim() != static_cast<int64_t>(shape.size())) return false;
  return std::equal(shape.begin(), shape.end(), tensor.sizes().begin());
}

// The arguments of the operators, checked.
struct Arguments {
  Arguments(const Tensor& x_in, const Tensor& means_in, const Tensor& factors_in, const Tensor& constant_in)
      : dtype(x_in.scalar_type()) {
    STD_TORCH_CHECK(x_in.dim() == 2 && (dtype == ScalarType::Float || dtype == ScalarType::Double),
                    "x must be float32 or float64 [N, D]");
    STD_TORCH_CHECK(constant_in.dim() == 1 && constant_in.size(0) > 0, "constant must be float64 [K], of a component");
    n = x_in.size(0), dims = x_in.size(1), components = constant_in.size(0);
    STD_TORCH_CHECK(fits(constant_in, {components}), "constant must be float64 [K]");
    STD_TORCH_CHECK(fits(means_in, {components, dims}), "means must be float64 [K, D] with the D of x");
    STD_TORCH_CHECK(fits(factors_in, {components, dims, dims}), "precisions_cholesky must be float64 [K, D, D]");
    x = torch::stable::contiguous(x_in), means = torch::stable::contiguous(means_in),
    factors = torch::stable::contiguous(factors_in), constant = torch::stable::contiguous(constant_in);
  }
  template <class T>
  Few<T> few() const {
    return {data<T>(x), data<double>(means), data<double>(factors), data<double>(constant), n, components, dims};
  }

  ScalarType dtype;
  Tensor x, means, factors, constant;
  int64_t n, dims, components;
};

template <class T>
struct Prepared {
  explicit Prepared(const Arguments& a)
      : kernels(PYGEN_BEST(kCovariance)),
        pruned(a.components > 1 && a.dims >= kPrunedFrom),
        centre(a.dims),
        gaussians(a.components),
        x(data<T>(a.x)) {
    // What rows are shifted by, in their own precision, must be known exactly.
    for (int64_t j = 0; j < a.dims; ++j) {
      double sum = 0;
      for (int64_t k = 0; k < a.components; ++k) sum += data<double>(a.means)[k * a.dims + j];
      centre[j] = static_cast<T>(sum / static_cast<double>(a.components));
    }
    const std::vector<double> shift(centre.begin(), centre.end());
    over_items(a.components, [&](int64_t k) {
      prepare(data<double>(a.factors) + k * a.dims * a.dims, data<double>(a.means) + k * a.dims, shift.data(), a.dims,
              data<double>(a.constant)[k], of<T>(kernels).columns, pruned, gaussians[k]);
    });
  }
  Rows<T> rows(const double* weights) const { return {x, static_cast<int64_t>(centre.size()), centre.data(), weights}; }

  const CovarianceKernels& kernels;
  const bool pruned;
  std::vector<T> centre;
  std::vector<Gaussian<T>> gaussians;
  const T* x;
};

std::tuple<Tensor, Tensor, Tensor, Tensor> full_em_cpu(const Tensor& x, const Tensor& means, const Tensor& factors,
                                                       const Tensor& constant, const std::optional<Tensor>& weights_in,
                                                       bool /*fast*/) {
  const Arguments a(x, means, factors, constant);
  STD_TORCH_CHECK(!weights_in.has_value() || fits(*weights_in, {a.n}), "sample_weight must be float64 [N]");
  std::optional<Tensor> weights;
  if (weights_in.has_value()) weights = torch::stable::contiguous(*weights_in);
  Tensor counts = torch::stable::empty_like(a.constant), first = torch::stable::empty_like(a.means),
         second = torch::stable::empty_like(a.factors), log_likelihood = torch::stable::new_empty(a.means, {});
  prefer_large_pages(second);
  torch::stable::zero_(counts);
  torch::stable::zero_(first);
  const auto run = [&](auto type) {
    using T = decltype(type);
    const double* weight = weights ? data<double>(*weights) : nullptr;
    if (const FewKernels<T>* kernels = few<T>(true, a.components, a.dims)) {
      *data<double>(log_likelihood) =
          few_em(*kernels, a.few<T>(), weight, data<double>(counts), data<double>(first), data<double>(second));
    } else {
      const Prepared<T> p(a);
      *data<double>(log_likelihood) =
          full_em(p.kernels, p.gaussians, p.rows(weight), a.n, p.pruned, data<double>(a.means), data<double>(counts),
                  data<double>(first), data<double>(second));
    }
  };
  a.dtype == ScalarType::Float ? run(float{}) : run(double{});
  return {counts, first, second, log_likelihood};
}

std::tuple<Tensor, Tensor> full_log_density_cpu(const Tensor& x, const Tensor& means, const Tensor& factors,
                                                const Tensor& constant, bool /*fast*/) {
  const Arguments a(x, means, factors, constant);
  Tensor density = torch::stable::new_empty(a.x, {a.n}, ScalarType::Double),
         component = torch::stable::new_empty(a.x, {a.n}, ScalarType::Long);
  // Calls f(first row, rows) for chunks. What is found of a row is its own.
  const auto over_chunks = [&](const auto& f) {
    constexpr int64_t kChunks = 64, kLeast = 96;
    const int64_t rows = std::clamp(a.n / kChunks, kLeast, chunk_of(a.components)), chunks = (a.n + rows - 1) / rows;
    over_items(chunks, [&](int64_t i) { f(i * rows, std::min(rows, a.n - i * rows)); });
  };
  const auto run = [&](auto type) {
    using T = decltype(type);
    if (const FewKernels<T>* kernels = few<T>(true, a.components, a.dims)) {
      const Few<T> gaussians = a.few<T>();
      over_chunks([&](int64_t first, int64_t count) {
        std::vector<double> scratch(kernels->sizes(gaussians).scratch);
        kernels->log_density(gaussians, first, first + count, scratch.data(), data<double>(density),
                             data<int64_t>(component));
      });
    } else {
      const Prepared<T> p(a);
      over_chunks([&](int64_t first, int64_t count) {
        Chunk<T>(p.kernels, p.gaussians, p.rows(nullptr), first, count)
            .log_density(p.pruned, data<double>(density) + first, data<int64_t>(component) + first);
      });
    }
  };
  a.dtype == ScalarType::Float ? run(float{}) : run(double{});
  return {density, component};
}

EmSums full_em_of_each_cpu(const Tensor& x, const Tensor& means, const Tensor& factors, const Tensor& constant,
                           const std::vector<int64_t>& ranges, const std::optional<Tensor>& weights, bool fast) {
  return em_of_each(x, means, factors, constant, ranges, weights, fast, full_em_cpu);
}

}  // namespace
}  // namespace pygen

STABLE_TORCH_LIBRARY_IMPL(pygen, CPU, m) {
  m.impl("full_em", TORCH_BOX(&pygen::full_em_cpu));
  m.impl("full_log_density", TORCH_BOX(&pygen::full_log_density_cpu));
  m.impl("full_em_of_each", TORCH_BOX(&pygen::full_em_of_each_cpu));
}
