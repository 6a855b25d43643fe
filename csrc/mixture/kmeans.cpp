// k-means on the CPU: distances from centres, and Lloyd's algorithm without most of its distances (Elkan, ICML 2003;
// Ding et al., ICML 2015): a centre that a bound shows to be farther than the row's own is not measured. The labels are
// those of the plain algorithm.
#include <cmath>
#include <limits>
#include <optional>

#include "../isa.h"
#include "sums.h"

namespace pygen {
namespace {

ScalarType check_centres(const Tensor& x, const Tensor& centres) {
  const ScalarType dtype = x.scalar_type();
  STD_TORCH_CHECK(x.dim() == 2 && (dtype == ScalarType::Float || dtype == ScalarType::Double),
                  "x must be float32 or float64 [N, D]");
  STD_TORCH_CHECK(centres.dim() == 2 && centres.scalar_type() == ScalarType::Double && centres.size(0) > 0 &&
                      centres.size(1) == x.size(1),
                  "centres must be float64 [K, D] with the D of x");
  return dtype;
}

bool is_vector(const Tensor& tensor, int64_t n) {
  return tensor.scalar_type() == ScalarType::Double && tensor.dim() == 1 && tensor.size(0) == n;
}

void check_weights(const std::optional<Tensor>& weights, int64_t n) {
  STD_TORCH_CHECK(!weights.has_value() || is_vector(*weights, n), "weights must be float64 [N]");
}

template <class T>
Distances<T> distances_kernel();
template <>
Distances<float> distances_kernel() {
  return PYGEN_BEST(kMixture).distances_float;
}
template <>
Distances<double> distances_kernel() {
  return PYGEN_BEST(kMixture).distances_double;
}

// Gives `each` every row with its squared distances from the centres, [K] every kTileRows.
template <class T, class Each>
void measure(const Tensor& x, const std::vector<T>& centres, int64_t n_centres, const Each& each) {
  constexpr int64_t kGrain = 8;  // tiles a thread takes at least: some 100 us of work
  const Distances<T> kernel = distances_kernel<T>();
  const int64_t n = x.size(0), dims = x.size(1);
  torch::stable::parallel_for(0, (n + kTileRows - 1) / kTileRows, kGrain, [&](int64_t first, int64_t last) {
    std::vector<double> distances(n_centres * kTileRows);
    for (int64_t row = first * kTileRows; row < std::min(last * kTileRows, n); row += kTileRows) {
      const int64_t count = std::min<int64_t>(kTileRows, n - row);
      kernel(data<T>(x) + row * dims, count, dims, centres.data(), n_centres, distances.data());
      for (int64_t i = 0; i < count; ++i) each(row + i, distances.data() + i);
    }
  });
}

void closer_cpu(const Tensor& x_in, const Tensor& centres_in, const Tensor& closest_in, Tensor found) {
  const ScalarType dtype = check_centres(x_in, centres_in);
  const int64_t n = x_in.size(0), n_centres = centres_in.size(0);
  STD_TORCH_CHECK(is_vector(closest_in, n), "closest must be float64 [N]");
  STD_TORCH_CHECK(found.scalar_type() == ScalarType::Double && found.dim() == 2 && found.size(0) == n_centres &&
                      found.size(1) == n && found.is_contiguous(),
                  "found must be float64 [K, N], contiguous");
  const Tensor x = torch::stable::contiguous(x_in), centres = torch::stable::contiguous(centres_in),
               closest = torch::stable::contiguous(closest_in);
  double* to = data<double>(found);
  const double* least = data<double>(closest);
  const auto run = [&](auto type) {
    const double* from = data<double>(centres);
    const std::vector<decltype(type)> rounded(from, from + centres.numel());
    measure(x, rounded, n_centres, [&](int64_t row, const double* distances) {
      for (int64_t k = 0; k < n_centres; ++k) to[k * n + row] = std::min(distances[k * kTileRows], least[row]);
    });
  };
  dtype == ScalarType::Float ? run(float{}) : run(double{});
}

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// How far a bound must be on the safe side: more than distances are rounded by.
template <class T>
constexpr double kSlack = sizeof(T) == 4 ? 1 + 2e-5 : 1 + 1e-11;
constexpr int64_t kBounds = int64_t{1} << 21;   // of all rows together; 8 MB
constexpr int64_t kChanges = int64_t{1} << 15;  // of labels, until they are taken into the sums

// No more than x.
inline float below(double x) { return static_cast<float>(x) * (1 - 0x1p-22f); }

template <class T>
class Lloyd {
 public:
  Lloyd(const Tensor& x, const Tensor& centres, const double* weights, AddMoments<T> add)
      : x_(x),
        n_(x.size(0)),
        dims_(x.size(1)),
        n_centres_(centres.size(0)),
        weights_(weights),
        add_(add),
        group_size_((n_centres_ + groups_wanted() - 1) / groups_wanted()),
        n_groups_((n_centres_ + group_size_ - 1) / group_size_),
        origin_(centres),
        sums_(centres),
        centres_(data<double>(centres), data<double>(centres) + n_centres_ * dims_),
        rounded_(centres_.begin(), centres_.end()),
        shift_(n_centres_),
        drift_(n_groups_),
        half_gap_(n_centres_),
        members_(n_centres_),
        labels_(n_),
        upper_(n_),
        lower_(n_ * n_groups_),
        places_(n_centres_ + 1) {}

  // At most max_iter steps, fewer where no label changes or the squares of the centres' moves sum up to `threshold` at
  // most.
  void run(int64_t max_iter, double threshold) {
    for (int64_t step = 0; step < max_iter; ++step) {
      step == 0 ? measure_all() : assign();
      if (!changed_) return;
      if (move() <= threshold) return assign();
    }
  }

  const std::vector<int64_t>& labels() const { return labels_; }
  const std::vector<double>& centres() const { return centres_; }

 private:
  int64_t groups_wanted() const { return std::clamp(kBounds / std::max(n_, int64_t{1}), int64_t{1}, n_centres_); }
  double weight(int64_t row) const { return weights_ ? weights_[row] : 1; }

  double distance(const T* from, int64_t centre) const {
    double squares[kTileRows];
    distances_kernel<T>()(from, 1, dims_, rounded_.data() + centre * dims_, 1, squares);
    return std::sqrt(squares[0]);
  }
  double distance(int64_t row, int64_t centre) const { return distance(data_ + row * dims_, centre); }

  void measure_all() {
    measure(x_, rounded_, n_centres_, [&](int64_t row, const double* squares) {
      float* lower = lower_.data() + row * n_groups_;
      int64_t best = 0;
      for (int64_t k = 1; k < n_centres_; ++k)
        if (squares[k * kTileRows] < squares[best * kTileRows]) best = k;
      for (int64_t g = 0; g < n_groups_; ++g) {
        double least = kInfinity;
        for (int64_t k = g * group_size_; k < std::min((g + 1) * group_size_, n_centres_); ++k)
          if (k != best) least = std::min(least, squares[k * kTileRows]);
        lower[g] = below(std::sqrt(least));
      }
      labels_[row] = best;
      upper_[row] = std::sqrt(squares[best * kTileRows]);
    });
    for (int64_t row = 0; row < n_; ++row) enter(row, labels_[row], 1);
    changed_ = true;
  }

  // New labels by bounds of the last step and how far the centres have moved since.
  void assign() {
    constexpr int64_t kRows = 256;  // a thread takes at least
    before_ = labels_;
    gaps();
    torch::stable::parallel_for(0, n_, kRows, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) assign(row);
    });
    changed_ = false;
    for (int64_t row = 0; row < n_; ++row) {
      if (labels_[row] == before_[row]) continue;
      enter(row, before_[row], -1);
      enter(row, labels_[row], 1);
      changed_ = true;
    }
  }

  void assign(int64_t row) {
    const int64_t own = labels_[row];
    float* lower = lower_.data() + row * n_groups_;
    const double bound = std::max<double>(PYGEN_BEST(kMixture).loosen(lower, drift_.data(), n_groups_), half_gap_[own]);
    upper_[row] += shift_[own];
    if (upper_[row] * kSlack<T> <= bound) return;
    const double to_own = upper_[row] = distance(row, own);
    if (to_own * kSlack<T> <= bound) return;
    int64_t best = own, best_group = -1;
    double to_best = to_own, to_second = kInfinity;
    for (int64_t g = 0; g < n_groups_; ++g) {
      if (to_best * kSlack<T> <= lower[g]) continue;
      int64_t nearest = -1;
      double to_nearest = kInfinity, to_next = kInfinity;
      for (int64_t k = g * group_size_; k < std::min((g + 1) * group_size_, n_centres_); ++k) {
        if (k == own) continue;
        const double d = distance(row, k);
        to_next = std::min(to_next, std::max(d, to_nearest));
        if (d < to_nearest) to_nearest = d, nearest = k;
      }
      lower[g] = below(to_nearest);
      if (to_nearest < to_best) best = nearest, to_best = to_nearest, best_group = g, to_second = to_next;
    }
    if (best == own) return;
    // Bounds are those of centres that are not the row's own.
    lower[best_group] = below(to_second);
    float& old = lower[own / group_size_];
    old = std::min(old, below(to_own));
    labels_[row] = best;
    upper_[row] = to_best;
  }

  // Half of how far each centre is from the nearest other: a row as near as that has no nearer one.
  void gaps() {
    std::fill(half_gap_.begin(), half_gap_.end(), 0);
    if (n_centres_ * n_centres_ > n_) return;  // would take longer than it spares
    std::fill(half_gap_.begin(), half_gap_.end(), kInfinity);
    for (int64_t i = 0; i < n_centres_; ++i)
      for (int64_t k = 0; k < i; ++k) {
        const double half = distance(rounded_.data() + i * dims_, k) / 2 / kSlack<T>;
        half_gap_[i] = std::min(half_gap_[i], half);
        half_gap_[k] = std::min(half_gap_[k], half);
      }
  }

  void enter(int64_t row, int64_t centre, int sign) {
    changes_.push_back({row, centre, sign * weight(row)});
    if (weight(row) > 0) members_[centre] += sign;
    if (static_cast<int64_t>(changes_.size()) >= kChanges) take_changes();
  }

  void take_changes() {
    sorted_.clear();
    sort_pairs(changes_.data(), static_cast<int64_t>(changes_.size()), data<double>(sums_.counts), places_, sorted_);
    sums_.add(data_, sorted_, add_);
    changes_.clear();
  }

  // Moves the centres to the means of their rows; gives the sum of the squares of their moves.
  double move() {
    take_changes();
    double* counts = data<double>(sums_.counts);
    double* first = data<double>(sums_.first);
    const std::vector<double> before = centres_;
    std::vector<int64_t> empty;
    for (int64_t k = 0; k < n_centres_; ++k) {
      if (members_[k] == 0) {
        empty.push_back(k);
        counts[k] = 0;
        std::fill_n(first + k * dims_, dims_, 0);
        continue;
      }
      for (int64_t j = k * dims_; j < (k + 1) * dims_; ++j)
        centres_[j] = data<double>(origin_)[j] + first[j] / counts[k];
    }
    if (!empty.empty()) place(empty);
    double moved = 0;
    std::fill(drift_.begin(), drift_.end(), 0);
    for (int64_t k = 0; k < n_centres_; ++k) {
      double squares = 0;
      for (int64_t j = k * dims_; j < (k + 1) * dims_; ++j) {
        const T rounded = static_cast<T>(centres_[j]);
        const double exact = centres_[j] - before[j], step = static_cast<double>(rounded) - rounded_[j];
        moved += exact * exact;
        squares += step * step;
        rounded_[j] = rounded;
      }
      shift_[k] = std::sqrt(squares) * kSlack<T>;
      float& drift = drift_[k / group_size_];
      drift = std::max(drift, static_cast<float>(shift_[k] * (1 + 0x1p-22)));
    }
    return moved;
  }

  // Centres without rows move to the rows farthest from theirs.
  void place(const std::vector<int64_t>& empty) {
    for (int64_t row = 0; row < n_; ++row) upper_[row] = distance(row, labels_[row]);
    std::vector<int64_t> rows;
    for (int64_t row = 0; row < n_; ++row)
      if (weight(row) > 0) rows.push_back(row);
    const auto farther = [&](int64_t a, int64_t b) {
      return upper_[a] > upper_[b] || (upper_[a] == upper_[b] && a < b);
    };
    const size_t number = std::min(empty.size(), rows.size());
    std::partial_sort(rows.begin(), rows.begin() + number, rows.end(), farther);
    for (size_t i = 0; i < number; ++i)
      std::copy_n(data_ + rows[i] * dims_, dims_, centres_.begin() + empty[i] * dims_);
  }

  const Tensor x_;
  const T* const data_ = data<T>(x_);
  const int64_t n_, dims_, n_centres_;
  const double* const weights_;
  const AddMoments<T> add_;
  const int64_t group_size_, n_groups_;
  const Tensor origin_;
  Sums sums_;  // about the first centres
  std::vector<double> centres_;
  std::vector<T> rounded_;
  std::vector<double> shift_;
  std::vector<float> drift_;
  std::vector<double> half_gap_;
  std::vector<int64_t> members_, labels_;
  std::vector<double> upper_;    // no less than the distance from a row's own centre
  std::vector<float> lower_;     // [n, groups]: no more than the distance from any other of the group
  bool changed_ = false;         // whether a label has, in the last step
  std::vector<int64_t> before_;  // the labels before it
  std::vector<Pair> changes_, sorted_;
  std::vector<int64_t> places_;
};

std::tuple<Tensor, Tensor> lloyd_cpu(const Tensor& x_in, const Tensor& centres_in,
                                     const std::optional<Tensor>& weights_in, int64_t max_iter, double threshold) {
  const ScalarType dtype = check_centres(x_in, centres_in);
  const int64_t n = x_in.size(0);
  check_weights(weights_in, n);
  STD_TORCH_CHECK(n > 0 && max_iter > 0, "x must have a row, and max_iter be positive");
  const Tensor x = torch::stable::contiguous(x_in), centres = torch::stable::contiguous(centres_in);
  std::optional<Tensor> weights;
  if (weights_in.has_value()) weights = torch::stable::contiguous(*weights_in);
  Tensor labels = torch::stable::new_empty(x, {n}, ScalarType::Long), moved = torch::stable::empty_like(centres);
  const auto run = [&](auto type, auto add) {
    using T = decltype(type);
    Lloyd<T> lloyd(x, centres, weights ? data<double>(*weights) : nullptr, add);
    lloyd.run(max_iter, threshold);
    std::copy(lloyd.labels().begin(), lloyd.labels().end(), data<int64_t>(labels));
    std::copy(lloyd.centres().begin(), lloyd.centres().end(), data<double>(moved));
  };
  const MixtureKernels& kernels = PYGEN_BEST(kMixture);
  dtype == ScalarType::Float ? run(float{}, kernels.moments_float) : run(double{}, kernels.moments_double);
  return {labels, moved};
}

}  // namespace
}  // namespace pygen

STABLE_TORCH_LIBRARY_IMPL(pygen, CPU, m) {
  m.impl("closer", TORCH_BOX(&pygen::closer_cpu));
  m.impl("lloyd", TORCH_BOX(&pygen::lloyd_cpu));
}
