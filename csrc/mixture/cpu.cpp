// The mixture family on the CPU. CMake compiles this file once per instruction set, PYGEN_ISA naming the namespace.
// Sums run in an order that depends on the sizes alone, never on the threads.
#include <cmath>
#include <type_traits>

#include "../lanes.h"
#include "mixture.h"

namespace pygen::PYGEN_ISA {
namespace {

// Rows that share each load and store of the sums; columns they are taken over before rows kAhead pairs later, which
// lie anywhere, are asked for from memory.
constexpr int kTogether = 4, kStretch = 64, kAhead = 32;

template <int Rows, class T>
void add_rows(const T* x, int64_t dims, const Pair* pairs, const Pair* last, int64_t columns,
              const double* __restrict__ mean, double* __restrict__ first, double* __restrict__ second) {
  const T* __restrict__ row[Rows];
  const T* ahead[Rows];
  double weight[Rows];
  for (int i = 0; i < Rows; ++i) {
    const Pair* later = pairs + i + kAhead < last ? pairs + i + kAhead : pairs + i;
    row[i] = x + pairs[i].row * dims;
    ahead[i] = x + later->row * dims;
    weight[i] = pairs[i].weight;
  }
  for (int64_t begin = 0; begin < columns; begin += kStretch) {
    const int64_t end = begin + kStretch < columns ? begin + kStretch : columns;
    for (int i = 0; i < Rows; ++i)
      for (int64_t j = begin; j < end; j += 64 / sizeof(T)) __builtin_prefetch(ahead[i] + j, 0, 2);
    for (int64_t j = begin; j < end; ++j) {
      double linear = first[j], square = second[j];
      for (int i = 0; i < Rows; ++i) {
        const double difference = static_cast<double>(row[i][j]) - mean[j];
        const double weighted = weight[i] * difference;
        linear += weighted;
        square += weighted * difference;
      }
      first[j] = linear;
      second[j] = square;
    }
  }
}

template <class T>
void moments(const Moments<T>& a, int64_t begin, int64_t end) {
  const int64_t columns = end - begin;
  const T* x = a.x + begin;
  const Pair *pair = a.pairs, *last = a.pairs + a.n_pairs;
  while (pair < last) {
    const int64_t offset = pair->group * a.dims + begin;
    const double* mean = a.means + offset;
    double *first = a.first + offset, *second = a.second + offset;
    const Pair* stop = pair + 1;
    while (stop < last && stop->group == pair->group) ++stop;
    for (; pair + kTogether <= stop; pair += kTogether)
      add_rows<kTogether>(x, a.dims, pair, last, columns, mean, first, second);
    for (; pair < stop; ++pair) add_rows<1>(x, a.dims, pair, last, columns, mean, first, second);
  }
}

template <class T>
void count(const Counts<T>& a, int64_t begin, int64_t end) {
  const int64_t table = a.dims * a.categories;
  for (int64_t n = 0; n < a.n; ++n) {
    const T* row = a.x + n * a.dims;
    double* counts = a.counts + a.index[n] * table;
    const double weight = a.weights ? a.weights[n] : 1;
    for (int64_t d = begin; d < end; ++d) {
      const int64_t category = static_cast<int64_t>(row[d]);
      if (category >= 0 && category < a.categories) counts[d * a.categories + category] += weight;
    }
  }
}

// Means that share each load of a row: with 32 registers 16 sums.
constexpr int kTileComponents = kRegisters == 32 ? 2 : 1;
// Where there are no precisions to load, 24 sums: the rows then leave the centres room in the first-level cache.
constexpr int kCentres = kRegisters == 32 ? 6 : 2, kCentreRows = 4;
static_assert(kTileRows % kCentreRows == 0);

// sum_d precision_d (x_d - mean_d)^2 for each of `Components` means and `Rows` rows, all consecutive. Without
// `Weighted` precisions are 1.
template <int Components, int Rows, bool Weighted = true, class T>
void squared_distances(const T* x, int64_t dims, const T* mean, const T* precision, double* out) {
  using V = Vector<T>;
  typename V::Lanes sums[Components][Rows] = {};
  int64_t d = 0;
  for (; d + V::kLanes <= dims; d += V::kLanes) {
    typename V::Lanes centre[Components], weight[Components], value;
    for (int k = 0; k < Components; ++k) {
      V::load(mean + k * dims + d, centre[k]);
      if (Weighted) V::load(precision + k * dims + d, weight[k]);
    }
    for (int row = 0; row < Rows; ++row) {
      V::load(x + row * dims + d, value);
      for (int k = 0; k < Components; ++k) {
        const typename V::Lanes difference = value - centre[k];
        sums[k][row] += Weighted ? difference * difference * weight[k] : difference * difference;
      }
    }
  }
  for (int k = 0; k < Components; ++k) {
    for (int row = 0; row < Rows; ++row) {
      double total = V::sum(sums[k][row]);
      for (int64_t rest = d; rest < dims; ++rest) {
        const double difference = static_cast<double>(x[row * dims + rest]) - mean[k * dims + rest];
        total += difference * difference * (Weighted ? precision[k * dims + rest] : 1);
      }
      out[k * kTileRows + row] = total;
    }
  }
}

template <int Rows, class T>
void distances_of_rows(const T* x, int64_t dims, const T* centres, int64_t n_centres, double* out) {
  constexpr T* kOnes = nullptr;
  int64_t k = 0;
  for (; k + kCentres <= n_centres; k += kCentres)
    squared_distances<kCentres, Rows, false>(x, dims, centres + k * dims, kOnes, out + k * kTileRows);
  for (; k < n_centres; ++k) squared_distances<1, Rows, false>(x, dims, centres + k * dims, kOnes, out + k * kTileRows);
}

template <class T>
void distances(const T* x, int64_t n, int64_t dims, const T* centres, int64_t n_centres, double* out) {
  int64_t i = 0;
  for (; i + kCentreRows <= n; i += kCentreRows)
    distances_of_rows<kCentreRows>(x + i * dims, dims, centres, n_centres, out + i);
  for (; i < n; ++i) distances_of_rows<1>(x + i * dims, dims, centres, n_centres, out + i);
}

float loosen(float* bounds, const float* by, int64_t n) {
  constexpr int kLanes = Vector<float>::kLanes;
  constexpr float kDown = 1 - 0x1p-22f;
  float least[kLanes];
  for (float& one : least) one = HUGE_VALF;
  const auto lower = [&](int64_t j, float& smallest) {
    bounds[j] = (bounds[j] - by[j]) * kDown;
    smallest = bounds[j] < smallest ? bounds[j] : smallest;
  };
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) lower(j + lane, least[lane]);
  for (; j < n; ++j) lower(j, least[0]);
  for (int lane = 1; lane < kLanes; ++lane) least[0] = least[lane] < least[0] ? least[lane] : least[0];
  return least[0];
}

double exact_squared_distance(const float* x, int64_t dims, const double* mean, const double* precision) {
  constexpr int kSums = 8;
  double sums[kSums] = {};
  int64_t d = 0;
  for (; d + kSums <= dims; d += kSums) {
    for (int i = 0; i < kSums; ++i) {
      const double difference = static_cast<double>(x[d + i]) - mean[d + i];
      sums[i] += difference * difference * precision[d + i];
    }
  }
  for (; d < dims; ++d) sums[0] += (x[d] - mean[d]) * (x[d] - mean[d]) * precision[d];
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

// Float32 leaves an error of 1e-4 nats: a row that more than one component may have is done again in float64. Below
// e^-20 a share of 2e-9 is wrong by less than float32 can tell.
constexpr double kClose = 20;

// From log joint densities of a row, `joint` every kTileRows, and the largest of them.
void settle(const Diagonal<float>& a, int64_t row, double* joint, double* largest) {
  int64_t close = 0;
  for (int64_t k = 0; k < a.components; ++k) close += joint[k * kTileRows] > *largest - kClose;
  if (close < 2) return;
  const double bound = *largest - kClose;
  bool started = false;
  for (int64_t k = 0; k < a.components; ++k) {
    if (!(joint[k * kTileRows] > bound)) continue;
    joint[k * kTileRows] =
        a.constant[k] - 0.5 * exact_squared_distance(a.x + row * a.dims, a.dims, a.exact_means + k * a.dims,
                                                     a.exact_precisions + k * a.dims);
    if (!started || joint[k * kTileRows] > *largest) *largest = joint[k * kTileRows];
    started = true;
  }
}

void settle(const Diagonal<double>&, int64_t, double*, double*) {}

// Rows [first, first + Rows) about the centre, [Rows][dims].
template <int Rows, class T>
void centre(const Diagonal<T>& a, int64_t first, T* __restrict__ to) {
  for (int row = 0; row < Rows; ++row, to += a.dims) {
    const T* x = a.x + (first + row) * a.dims;
    for (int64_t d = 0; d < a.dims; ++d) to[d] = x[d] - a.centre[d];
  }
}

// Log joint densities of `Rows` such rows, [components][kTileRows], and the largest of each.
template <int Rows, class T>
void tile(const Diagonal<T>& a, const T* x, double* joint, double* largest) {
  int64_t k = 0;
  for (; k + kTileComponents <= a.components; k += kTileComponents)
    squared_distances<kTileComponents, Rows>(x, a.dims, a.means + k * a.dims, a.precisions + k * a.dims,
                                             joint + k * kTileRows);
  for (; k < a.components; ++k)
    squared_distances<1, Rows>(x, a.dims, a.means + k * a.dims, a.precisions + k * a.dims, joint + k * kTileRows);
  for (k = 0; k < a.components; ++k)
    for (int row = 0; row < Rows; ++row) joint[k * kTileRows + row] = a.constant[k] - 0.5 * joint[k * kTileRows + row];
  for (int row = 0; row < Rows; ++row) {
    largest[row] = joint[row];
    for (k = 1; k < a.components; ++k)
      if (joint[k * kTileRows + row] > largest[row]) largest[row] = joint[k * kTileRows + row];
  }
}

// Vectors of components whose bounds are found together, each with kTileRows sums.
constexpr int kScreened = kRegisters == 32 ? 2 : 1;

// Bounds of log joint densities [kTileRows, stride], of `Vectors` vectors of components from `first` on.
template <int Vectors, class T>
void bound(const Screen<T>& a, const T* x, int64_t dims, int64_t first, T* bounds) {
  using V = Vector<T>;
  typename V::Lanes sums[Vectors][kTileRows] = {};
  for (int64_t j = 0; j < a.n_columns; ++j) {
    typename V::Lanes centre[Vectors], weight[Vectors];
    for (int v = 0; v < Vectors; ++v) {
      V::load(a.means + j * a.stride + first + v * V::kLanes, centre[v]);
      V::load(a.precisions + j * a.stride + first + v * V::kLanes, weight[v]);
    }
    for (int row = 0; row < kTileRows; ++row) {
      const T value = x[row * dims + a.columns[j]];
      for (int v = 0; v < Vectors; ++v) {
        const typename V::Lanes difference = value - centre[v];
        sums[v][row] += difference * difference * weight[v];
      }
    }
  }
  for (int v = 0; v < Vectors; ++v) {
    typename V::Lanes constant;
    V::load(a.constant + first + v * V::kLanes, constant);
    for (int row = 0; row < kTileRows; ++row)
      V::store(constant - sums[v][row] * static_cast<T>(0.5 * (1 - kSlack)),
               bounds + row * a.stride + first + v * V::kLanes);
  }
}

// Where the largest of n values is, n a multiple of the lanes.
template <class T>
int64_t argmax(const T* values, int64_t n) {
  using V = Vector<T>;
  typename V::Lanes top, lanes;
  V::load(values, top);
  for (int64_t i = V::kLanes; i < n; i += V::kLanes) {
    V::load(values + i, lanes);
    top = lanes > top ? lanes : top;
  }
  T parts[V::kLanes];
  V::store(top, parts);
  for (int half = V::kLanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) parts[i] = parts[half + i] > parts[i] ? parts[half + i] : parts[i];
  int64_t at = 0;
  while (at < n - 1 && values[at] != parts[0]) ++at;
  return at;
}

// As `tile` for kTileRows rows, but -inf where a component's bound shows that it does not matter: in each row those
// with the largest bounds come first, until none is left that may. False where they are more than half of all.
template <class T>
bool screened_tile(const Diagonal<T>& a, const T* x, T* bounds, double* joint, double* largest) {
  const Screen<T>& screen = *a.screen;
  constexpr int kLanes = Vector<T>::kLanes;
  int64_t k = 0;
  for (; k + kScreened * kLanes <= screen.stride; k += kScreened * kLanes)
    bound<kScreened>(screen, x, a.dims, k, bounds);
  for (; k < screen.stride; k += kLanes) bound<1>(screen, x, a.dims, k, bounds);
  for (int64_t i = 0; i < a.components * kTileRows; ++i) joint[i] = -HUGE_VAL;
  for (int row = 0; row < kTileRows; ++row, x += a.dims, bounds += screen.stride) {
    largest[row] = -HUGE_VAL;
    for (int64_t seen = 0;; ++seen) {
      k = argmax(bounds, screen.stride);
      if (!(bounds[k] > largest[row] + kLogNegligible)) break;
      if (2 * seen > a.components) return false;
      double distance;
      squared_distances<1, 1>(x, a.dims, a.means + k * a.dims, a.precisions + k * a.dims, &distance);
      const double density = joint[k * kTileRows + row] = a.constant[k] - 0.5 * distance;
      if (density > largest[row]) largest[row] = density;
      bounds[k] = -HUGE_VAL;
    }
  }
  return true;
}

// Rows [begin, end) tile by tile; `each` is given a row, its log joint densities and the largest. With `Screened` those
// that do not matter may be -inf; where too many do, the rest of the rows is not screened.
template <bool Screened, class T, class Each>
void tiles(const Diagonal<T>& a, int64_t begin, int64_t end, double* scratch, const Each& each) {
  double largest[kTileRows];
  double* const joint = scratch;
  T* const x = reinterpret_cast<T*>(scratch + a.components * kTileRows);
  bool screened = Screened && a.screen;
  while (begin < end) {
    const bool whole = begin + kTileRows <= end;
    whole ? centre<kTileRows>(a, begin, x) : centre<1>(a, begin, x);
    if (screened && whole) screened = screened_tile(a, x, x + a.dims * kTileRows, joint, largest);
    if (!whole)
      tile<1>(a, x, joint, largest);
    else if (!screened)
      tile<kTileRows>(a, x, joint, largest);
    for (int row = 0; row < (whole ? kTileRows : 1); ++row, ++begin) {
      if (a.settle) settle(a, begin, joint + row, largest + row);
      each(begin, joint + row, largest[row]);
    }
  }
}

template <class T>
void log_joint(const Diagonal<T>& a, int64_t begin, int64_t end, double* scratch, T* relative, double* largest) {
  tiles<false>(a, begin, end, scratch, [&](int64_t row, const double* joint, double top) {
    largest[row] = top;
    for (int64_t k = 0; k < a.components; ++k) relative[k * a.n + row] = static_cast<T>(joint[k * kTileRows] - top);
  });
}

template <class T>
int64_t posterior(const Diagonal<T>& a, int64_t begin, int64_t end, const double* weights, double* scratch, Pair* pairs,
                  double* log_likelihood) {
  Pair* next = pairs;
  tiles<true>(a, begin, end, scratch, [&](int64_t row, const double* joint, double top) {
    Pair* const first = next;
    double total = 0;
    for (int64_t k = 0; k < a.components; ++k) {
      const double relative = joint[k * kTileRows] - top;
      if (!(relative > kLogNegligible)) continue;
      *next = {row, k, std::exp(relative)};
      total += (next++)->weight;
    }
    const double weight = weights ? weights[row] : 1;
    for (Pair* pair = first; pair < next; ++pair) pair->weight *= weight / total;
    *log_likelihood += weight * (top + std::log(total));
  });
  return next - pairs;
}

template <class T>
void log_density(const Diagonal<T>& a, int64_t begin, int64_t end, double* scratch, double* density,
                 int64_t* component) {
  tiles<true>(a, begin, end, scratch, [&](int64_t row, const double* joint, double top) {
    double total = 0;
    int64_t best = a.components;
    for (int64_t k = 0; k < a.components; ++k) {
      const double relative = joint[k * kTileRows] - top;
      if (relative > kLogNegligible) total += std::exp(relative);
      if (relative == 0 && best == a.components) best = k;
    }
    density[row] = top + std::log(total);
    component[row] = best < a.components ? best : 0;
  });
}

}  // namespace

const MixtureKernels kMixture = {
    moments<float>,     moments<double>,     log_joint<float>, log_joint<double>, posterior<float>, posterior<double>,
    log_density<float>, log_density<double>, distances<float>, distances<double>, loosen,           count<uint8_t>,
    count<int64_t>};

}  // namespace pygen::PYGEN_ISA
