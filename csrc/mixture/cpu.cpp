// The mixture family on the CPU. CMake compiles this file once per instruction set, PYGEN_ISA naming the namespace.
// Sums run in an order that depends on the sizes alone, never on the threads.
#include <cstring>

#include "mixture.h"

namespace pygen::PYGEN_ISA {
namespace {

// Rows that share each load and store of the sums.
constexpr int kTogether = 4;

template <int Rows, class T>
void add_rows(const Moments<T>& a, int64_t pair, int64_t begin, int64_t columns, const double* __restrict__ mean,
              double* __restrict__ first, double* __restrict__ second) {
  const T* __restrict__ row[Rows];
  double weight[Rows];
  for (int i = 0; i < Rows; ++i) {
    row[i] = a.x + a.rows[pair + i] * a.dims + begin;
    weight[i] = a.weights[pair + i];
  }
  for (int64_t j = 0; j < columns; ++j) {
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

template <class T>
void moments(const Moments<T>& a, int64_t begin, int64_t end) {
  const int64_t columns = end - begin;
  int64_t pair = 0;
  for (int64_t k = 0; k < a.components; ++k) {
    const double* __restrict__ mean = a.means + k * a.dims + begin;
    double* __restrict__ first = a.first + k * a.dims + begin;
    double* __restrict__ second = a.second + k * a.dims + begin;
    for (int64_t j = 0; j < columns; ++j) first[j] = second[j] = 0;
    const int64_t last = pair + a.sizes[k];
    for (; pair + kTogether <= last; pair += kTogether)
      add_rows<kTogether>(a, pair, begin, columns, mean, first, second);
    for (; pair < last; ++pair) add_rows<1>(a, pair, begin, columns, mean, first, second);
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

#ifdef __AVX512F__
constexpr int kVectorBytes = 64, kTileComponents = 2;  // 16 sums of 32 registers: each load of a row serves two
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32, kTileComponents = 1;  // 8 sums of 16 registers
#else
constexpr int kVectorBytes = 16, kTileComponents = 1;
#endif

template <class T>
struct Vector {
  static constexpr int kLanes = kVectorBytes / sizeof(T);
  typedef T Lanes __attribute__((vector_size(kVectorBytes)));
  // Not by value: how a vector is returned depends on the instruction set.
  static void load(const T* from, Lanes& lanes) { std::memcpy(&lanes, from, sizeof lanes); }
};

// sum_d precision_d (x_d - mean_d)^2 for each of `Components` means and `Rows` rows, all consecutive.
template <int Components, int Rows, class T>
void squared_distances(const T* x, int64_t dims, const T* mean, const T* precision, double* out) {
  using V = Vector<T>;
  typename V::Lanes sums[Components][Rows] = {};
  int64_t d = 0;
  for (; d + V::kLanes <= dims; d += V::kLanes) {
    typename V::Lanes centre[Components], weight[Components], value;
    for (int k = 0; k < Components; ++k) {
      V::load(mean + k * dims + d, centre[k]);
      V::load(precision + k * dims + d, weight[k]);
    }
    for (int row = 0; row < Rows; ++row) {
      V::load(x + row * dims + d, value);
      for (int k = 0; k < Components; ++k) {
        const typename V::Lanes difference = value - centre[k];
        sums[k][row] += difference * difference * weight[k];
      }
    }
  }
  for (int k = 0; k < Components; ++k) {
    for (int row = 0; row < Rows; ++row) {
      double total = 0;
      for (int lane = 0; lane < V::kLanes; ++lane) total += sums[k][row][lane];
      for (int64_t rest = d; rest < dims; ++rest) {
        const double difference = static_cast<double>(x[row * dims + rest]) - mean[k * dims + rest];
        total += difference * difference * precision[k * dims + rest];
      }
      out[k * kTileRows + row] = total;
    }
  }
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

void settle(const LogJoint<float>& a, int64_t row, double* joint, double* largest) {
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

void settle(const LogJoint<double>&, int64_t, double*, double*) {}

template <int Rows, class T>
void tile(const LogJoint<T>& a, int64_t first, double* joint) {
  const T* x = a.x + first * a.dims;
  int64_t k = 0;
  for (; k + kTileComponents <= a.components; k += kTileComponents)
    squared_distances<kTileComponents, Rows>(x, a.dims, a.means + k * a.dims, a.precisions + k * a.dims,
                                             joint + k * kTileRows);
  for (; k < a.components; ++k)
    squared_distances<1, Rows>(x, a.dims, a.means + k * a.dims, a.precisions + k * a.dims, joint + k * kTileRows);
  for (k = 0; k < a.components; ++k)
    for (int row = 0; row < Rows; ++row) joint[k * kTileRows + row] = a.constant[k] - 0.5 * joint[k * kTileRows + row];
  for (int row = 0; row < Rows; ++row) {
    double largest = joint[row];
    for (k = 1; k < a.components; ++k)
      if (joint[k * kTileRows + row] > largest) largest = joint[k * kTileRows + row];
    settle(a, first + row, joint + row, &largest);
    a.largest[first + row] = largest;
    for (k = 0; k < a.components; ++k)
      a.relative[k * a.n + first + row] = static_cast<T>(joint[k * kTileRows + row] - largest);
  }
}

template <class T>
void log_joint(const LogJoint<T>& a, int64_t begin, int64_t end, double* scratch) {
  int64_t row = begin;
  for (; row + kTileRows <= end; row += kTileRows) tile<kTileRows>(a, row, scratch);
  for (; row < end; ++row) tile<1>(a, row, scratch);
}

}  // namespace

const MixtureKernels kMixture = {moments<float>,    moments<double>, log_joint<float>,
                                 log_joint<double>, count<uint8_t>,  count<int64_t>};

}  // namespace pygen::PYGEN_ISA
