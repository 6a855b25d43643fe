// Batch norm and activations over rows of channels. CMake compiles this file once per instruction set, PYGEN_ISA naming
// the namespace.
#include "activation.h"
#include "conv.h"
#include "tile.h"

namespace pygen::PYGEN_ISA {
namespace {

// Rows and vectors of channels taken together: what belongs to channels is loaded once for many rows, and memory is
// read nearly as it lies.
constexpr int64_t kBlock = 32, kVectors = 16;

template <class T>
struct Channels {
  typename Vector<T>::Lanes mean, scale, shift;

  Channels() = default;
  Channels(const Normalization<T>& a, int64_t channel, int64_t count) {
    load(a.mean + channel, count, mean);
    load(a.scale + channel, count, scale);
    load(a.shift + channel, count, shift);
  }
};

// Calls f(first channel, vectors, first row, end) for blocks of rows.
template <class T, class F>
inline void over_blocks(int64_t n, int64_t channels, const F& f) {
  const int64_t all = over(channels, kLanes<T>);
  for (int64_t begin = 0; begin < n; begin += kBlock)
    for (int64_t vector = 0; vector < all; vector += kVectors)
      f(vector * kLanes<T>, least(kVectors, all - vector), begin, least(begin + kBlock, n));
}

template <class T>
void normalize(const Normalization<T>& a, int64_t n, const T* z, T* y) {
  over_blocks<T>(n, a.channels, [&](int64_t channel, int64_t vectors, int64_t begin, int64_t end) {
    Channels<T> c[kVectors];
    for (int64_t v = 0; v < vectors; ++v)
      c[v] = Channels<T>(a, channel + v * kLanes<T>, a.channels - channel - v * kLanes<T>);
    for (int64_t i = begin; i < end; ++i)
      for (int64_t v = 0; v < vectors; ++v) {
        const int64_t first = channel + v * kLanes<T>, at = i * a.channels + first, count = a.channels - first;
        typename Vector<T>::Lanes lanes;
        load(z + at, count, lanes);
        lanes = (lanes - c[v].mean) * c[v].scale + c[v].shift;
        activate<T>(a.activation, a.slope, &lanes, 1);
        store<T>(lanes, count, y + at);
      }
  });
}

// grad * act'(y)
template <class T>
inline void pull_back(int64_t activation, T slope, const typename Vector<T>::Lanes& y,
                      typename Vector<T>::Lanes& grad) {
  using Lanes = typename Vector<T>::Lanes;
  switch (activation) {
    case kRelu:
      grad = y <= 0 ? Lanes{} : grad;
      break;
    case kLeakyRelu:
      grad = y > 0 ? grad : slope * grad;
      break;
    case kTanh:
      grad *= 1 - y * y;
      break;
    case kSigmoid:
      grad *= y * (1 - y);
      break;
    default:
      break;
  }
}

template <class T>
void activation_gradient(int64_t activation, T slope, int64_t n, const T* grad, const T* y, T* out) {
  for (int64_t i = 0; i < n; i += kLanes<T>) {
    typename Vector<T>::Lanes lanes, result;
    load(grad + i, n - i, lanes);
    load(y + i, n - i, result);
    pull_back<T>(activation, slope, result, lanes);
    store<T>(lanes, n - i, out + i);
  }
}

template <class T>
void column_sums(int64_t channels, int64_t n, const T* x, double* sums) {
  for (int64_t i = 0; i < n; ++i)
    for (int64_t c = 0; c < channels; ++c) sums[c] += x[i * channels + c];
}

// grad * act'(y), and z - mean, of a vector of channels of a row.
template <class T>
inline void gradient_of_row(const Normalization<T>& a, const Channels<T>& c, const T* grad, const T* z, int64_t count,
                            typename Vector<T>::Lanes& g, typename Vector<T>::Lanes& centred) {
  load(grad, count, g);
  load(z, count, centred);
  centred -= c.mean;
  typename Vector<T>::Lanes y = centred * c.scale + c.shift;
  if (a.activation == kTanh || a.activation == kSigmoid) activate<T>(a.activation, a.slope, &y, 1);
  pull_back<T>(a.activation, a.slope, y, g);
}

template <class T>
void gradient_sums(const Normalization<T>& a, int64_t n, const T* grad, const T* z, double* sums) {
  over_blocks<T>(n, a.channels, [&](int64_t channel, int64_t vectors, int64_t begin, int64_t end) {
    Channels<T> c[kVectors];
    typename Vector<T>::Lanes first[kVectors] = {}, second[kVectors] = {};
    for (int64_t v = 0; v < vectors; ++v)
      c[v] = Channels<T>(a, channel + v * kLanes<T>, a.channels - channel - v * kLanes<T>);
    for (int64_t i = begin; i < end; ++i)
      for (int64_t v = 0; v < vectors; ++v) {
        const int64_t from = channel + v * kLanes<T>, at = i * a.channels + from;
        typename Vector<T>::Lanes g, centred;
        gradient_of_row(a, c[v], grad + at, z + at, a.channels - from, g, centred);
        first[v] += g;
        second[v] += g * centred;
      }
    for (int64_t i = 0; i < least(vectors * kLanes<T>, a.channels - channel); ++i) {
      sums[channel + i] += first[i / kLanes<T>][i % kLanes<T>];
      sums[a.channels + channel + i] += second[i / kLanes<T>][i % kLanes<T>];
    }
  });
}

template <class T>
void gradient(const Normalization<T>& a, const T* coefficients, int64_t n, const T* grad, const T* z, T* out) {
  over_blocks<T>(n, a.channels, [&](int64_t channel, int64_t vectors, int64_t begin, int64_t end) {
    Channels<T> c[kVectors];
    typename Vector<T>::Lanes first[kVectors], second[kVectors];
    for (int64_t v = 0; v < vectors; ++v) {
      const int64_t from = channel + v * kLanes<T>, count = a.channels - from;
      c[v] = Channels<T>(a, from, count);
      load(coefficients + from, count, first[v]);
      load(coefficients + a.channels + from, count, second[v]);
    }
    for (int64_t i = begin; i < end; ++i)
      for (int64_t v = 0; v < vectors; ++v) {
        const int64_t from = channel + v * kLanes<T>, at = i * a.channels + from, count = a.channels - from;
        typename Vector<T>::Lanes g, centred;
        gradient_of_row(a, c[v], grad + at, z + at, count, g, centred);
        store<T>(c[v].scale * g - first[v] - second[v] * centred, count, out + at);
      }
  });
}

template <class T>
constexpr RowKernels<T> kKernels = {normalize<T>, activation_gradient<T>, column_sums<T>, gradient_sums<T>,
                                    gradient<T>};

}  // namespace

const RowKernels<float> kRowsFloat = kKernels<float>;
const RowKernels<double> kRowsDouble = kKernels<double>;

}  // namespace pygen::PYGEN_ISA
