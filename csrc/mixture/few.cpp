// Mixtures with few features on the CPU. CMake compiles this file once per instruction set, PYGEN_ISA
// naming the namespace. Sums run in an order that depends on the sizes alone, never on the threads.
#include "few.h"

#include <cmath>

#include "../lanes.h"
#include "../reparameterize/exponential.h"

namespace pygen::PYGEN_ISA {
namespace {

using V = Vector<double>;
using Lanes = V::Lanes;

// A lane has a row; so many vectors of them share each load of the parameters.
constexpr int kVectors = 4, kLanes = V::kLanes, kRows = kVectors * kLanes;

template <bool kDependent>
int64_t shape_size(int64_t dims) {
  return kDependent ? dims * dims : dims;
}

template <bool kDependent, class T>
FewSizes sizes(const Few<T>& a) {
  const int64_t first = a.components * a.dims, second = a.components * shape_size<kDependent>(a.dims),
                sums = 1 + a.components + first + second;
  return {(2 * a.dims + a.components) * kRows + sums * kLanes, first, second, sums};
}

// Vectors of kRows numbers.
using Rows = Lanes[kVectors];

inline void load(const double* from, Rows& rows) {
  for (int v = 0; v < kVectors; ++v) V::load(from + v * kLanes, rows[v]);
}

inline void store(const Rows& rows, double* to) {
  for (int v = 0; v < kVectors; ++v) V::store(rows[v], to + v * kLanes);
}

// Rows from `first` on, [dims, kRows]; beyond `count` the first one again.
template <class T>
void gather(const Few<T>& a, int64_t first, int64_t count, double* rows) {
  for (int64_t i = 0; i < kRows; ++i) {
    const T* from = a.x + (first + (i < count ? i : 0)) * a.dims;
    for (int64_t d = 0; d < a.dims; ++d) rows[d * kRows + i] = static_cast<double>(from[d]);
  }
}

// The rows less a mean; where each number is taken once or twice only, as they come.
template <bool kDependent>
class Centred {
 public:
  Centred(const double* rows, const double* mean, int64_t dims, double* scratch)
      : rows_(kDependent ? scratch : rows), mean_(mean) {
    if (kDependent)
      for (int64_t d = 0; d < dims; ++d)
        for (int64_t i = 0; i < kRows; ++i) scratch[d * kRows + i] = rows[d * kRows + i] - mean[d];
  }
  void load(int64_t d, Rows& to) const {
    for (int v = 0; v < kVectors; ++v) {
      V::load(rows_ + d * kRows + v * kLanes, to[v]);
      if (!kDependent) to[v] -= mean_[d];
    }
  }

 private:
  const double *rows_, *mean_;
};

// Squared distances from a mean, by the precisions or their factor.
template <bool kDependent>
void distances(const Centred<kDependent>& centred, const double* shape, int64_t dims, Rows& sums) {
  for (int v = 0; v < kVectors; ++v) sums[v] = Lanes{};
  for (int64_t d = 0; d < dims; ++d) {
    Rows value;
    if constexpr (kDependent) {
      for (int v = 0; v < kVectors; ++v) value[v] = Lanes{};
      for (int64_t j = 0; j <= d; ++j) {
        Rows one;
        centred.load(j, one);
        for (int v = 0; v < kVectors; ++v) value[v] += one[v] * shape[j * dims + d];
      }
      for (int v = 0; v < kVectors; ++v) sums[v] += value[v] * value[v];
    } else {
      centred.load(d, value);
      for (int v = 0; v < kVectors; ++v) sums[v] += value[v] * value[v] * shape[d];
    }
  }
}

// Log joint densities [components, kRows], and the largest of each row.
template <bool kDependent, class T>
void joint_of(const Few<T>& a, const double* rows, double* scratch, double* joint, Rows& largest) {
  for (int64_t k = 0; k < a.components; ++k, joint += kRows) {
    Rows density;
    const Centred<kDependent> centred(rows, a.means + k * a.dims, a.dims, scratch);
    distances(centred, a.shape + k * shape_size<kDependent>(a.dims), a.dims, density);
    for (int v = 0; v < kVectors; ++v) {
      density[v] = a.constant[k] - 0.5 * density[v];
      if (k == 0) largest[v] = density[v];
      largest[v] = density[v] > largest[v] ? density[v] : largest[v];
    }
    store(density, joint);
  }
}

// exp of [kLogNegligible, 0].
inline void exponentiate(Lanes& lanes) {
  double values[kLanes];
  V::store(lanes, values);
  for (int i = 0; i < kLanes; ++i) values[i] = spread(2 * values[i]).deviation;
  V::load(values, lanes);
}

// Of log joint densities, by their exponentials relative to the largest, which those that are negligible lack: of each
// row the sum.
void exponentials_of(int64_t components, const Rows& largest, double* joint, Rows& total) {
  for (int v = 0; v < kVectors; ++v) total[v] = Lanes{};
  for (int64_t k = 0; k < components; ++k, joint += kRows) {
    Rows share;
    load(joint, share);
    for (int v = 0; v < kVectors; ++v) {
      const Lanes relative = share[v] - largest[v];
      share[v] = relative > kLogNegligible ? relative : Lanes{};
      exponentiate(share[v]);
      share[v] = relative > kLogNegligible ? share[v] : Lanes{};
      total[v] += share[v];
    }
    store(share, joint);
  }
}

// Adds what kRows rows with their shares of a component have to its moments, in lanes.
template <bool kDependent>
void add_moments(const Centred<kDependent>& centred, const Rows& share, int64_t dims, double* first, double* second) {
  for (int64_t d = 0; d < dims; ++d) {
    Rows value, weighted;
    Lanes linear;
    centred.load(d, value);
    V::load(first + d * kLanes, linear);
    for (int v = 0; v < kVectors; ++v) {
      weighted[v] = share[v] * value[v];
      linear += weighted[v];
    }
    V::store(linear, first + d * kLanes);
    for (int64_t j = kDependent ? 0 : d; j <= d; ++j) {
      double* to = second + (kDependent ? d * dims + j : d) * kLanes;
      Rows other;
      Lanes square;
      centred.load(j, other);
      V::load(to, square);
      for (int v = 0; v < kVectors; ++v) square += weighted[v] * other[v];
      V::store(square, to);
    }
  }
}

template <bool kDependent, class T>
void em(const Few<T>& a, int64_t begin, int64_t end, const double* weights, double* rows, double* sums) {
  const FewSizes size = sizes<kDependent>(a);
  double *scratch = rows + a.dims * kRows, *joint = scratch + a.dims * kRows, *lanes = joint + a.components * kRows;
  std::memset(lanes, 0, (size.sums - 1) * kLanes * sizeof(double));
  double *const first = lanes + a.components * kLanes, *const second = first + size.first * kLanes, log_likelihood = 0;
  for (int64_t row = begin; row < end; row += kRows) {
    const int64_t count = end - row < kRows ? end - row : kRows;
    Rows largest, total, scale;
    gather(a, row, count, rows);
    joint_of<kDependent>(a, rows, scratch, joint, largest);
    exponentials_of(a.components, largest, joint, total);
    double tops[kRows], totals[kRows], scales[kRows];
    store(largest, tops);
    store(total, totals);
    for (int64_t i = 0; i < kRows; ++i) {
      const double weight = i >= count ? 0 : weights ? weights[row + i] : 1;
      if (i < count) log_likelihood += weight * (tops[i] + std::log(totals[i]));
      scales[i] = totals[i] > 0 ? weight / totals[i] : 0;
      // A row that is not finite is nobody's: zero times it would be no number.
      if (!(totals[i] > 0))
        for (int64_t d = 0; d < a.dims; ++d) rows[d * kRows + i] = 0;
    }
    load(scales, scale);
    for (int64_t k = 0; k < a.components; ++k) {
      Rows share;
      Lanes all = {}, before;
      load(joint + k * kRows, share);
      for (int v = 0; v < kVectors; ++v) {
        share[v] *= scale[v];
        all += share[v];
      }
      if (V::sum(all) == 0) continue;
      V::load(lanes + k * kLanes, before);
      V::store(before + all, lanes + k * kLanes);
      add_moments(Centred<kDependent>(rows, a.means + k * a.dims, a.dims, scratch), share, a.dims,
                  first + k * a.dims * kLanes, second + k * shape_size<kDependent>(a.dims) * kLanes);
    }
  }
  sums[0] = log_likelihood;
  for (int64_t i = 0; i < size.sums - 1; ++i) {
    Lanes one;
    V::load(lanes + i * kLanes, one);
    sums[1 + i] = V::sum(one);
  }
}

template <bool kDependent, class T>
void log_joint(const Few<T>& a, int64_t begin, int64_t end, double* rows, T* relative, double* largest) {
  double *scratch = rows + a.dims * kRows, *joint = scratch + a.dims * kRows;
  for (int64_t row = begin; row < end; row += kRows) {
    const int64_t count = end - row < kRows ? end - row : kRows;
    Rows tops;
    double top[kRows];
    gather(a, row, count, rows);
    joint_of<kDependent>(a, rows, scratch, joint, tops);
    store(tops, top);
    std::memcpy(largest + row, top, count * sizeof(double));
    for (int64_t k = 0; k < a.components; ++k)
      for (int64_t i = 0; i < count; ++i) relative[k * a.n + row + i] = static_cast<T>(joint[k * kRows + i] - top[i]);
  }
}

template <bool kDependent, class T>
void log_density(const Few<T>& a, int64_t begin, int64_t end, double* rows, double* density, int64_t* component) {
  double *scratch = rows + a.dims * kRows, *joint = scratch + a.dims * kRows;
  for (int64_t row = begin; row < end; row += kRows) {
    const int64_t count = end - row < kRows ? end - row : kRows;
    Rows largest, total;
    double tops[kRows], totals[kRows];
    int64_t best[kRows] = {};
    gather(a, row, count, rows);
    joint_of<kDependent>(a, rows, scratch, joint, largest);
    store(largest, tops);
    for (int64_t k = a.components - 1; k >= 0; --k)
      for (int i = 0; i < kRows; ++i) best[i] = joint[k * kRows + i] == tops[i] ? k : best[i];
    exponentials_of(a.components, largest, joint, total);
    store(total, totals);
    for (int64_t i = 0; i < count; ++i) density[row + i] = tops[i] + std::log(totals[i]);
    std::memcpy(component + row, best, count * sizeof(int64_t));
  }
}

template <bool kDependent, class T>
constexpr FewKernels<T> kKernels = {sizes<kDependent, T>, em<kDependent, T>, log_joint<kDependent, T>,
                                    log_density<kDependent, T>};

template <class T>
constexpr FewOfBoth<T> kBoth = {kKernels<false, T>, kKernels<true, T>};

}  // namespace

const FewOfBoth<float> kFewFloat = kBoth<float>;
const FewOfBoth<double> kFewDouble = kBoth<double>;

}  // namespace pygen::PYGEN_ISA
