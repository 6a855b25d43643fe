// Batch norm and activations over rows of channels. CMake compiles this file once per instruction set, PYGEN_ISA naming
// the namespace.
#include "activation.h"
#include "conv.h"
#include "tile.h"

namespace pygen::PYGEN_ISA {
namespace {

// Rows taken together, so that what belongs to a vector of channels is loaded once for many.
constexpr int64_t kBlock = 32;

template <class T>
struct Channels {
  typename Vector<T>::Lanes mean, scale, shift;

  Channels(const Normalization<T>& a, int64_t channel, int64_t count) {
    load(a.mean + channel, count, mean);
    load(a.scale + channel, count, scale);
    load(a.shift + channel, count, shift);
  }
};

// Calls f(channel, count, rows from, rows to) for vectors of channels of some rows at a time.
template <class T, class F>
inline void over_channels(int64_t n, int64_t channels, const F& f) {
  for (int64_t begin = 0; begin < n; begin += kBlock)
    for (int64_t channel = 0; channel < channels; channel += kLanes<T>)
      f(channel, channels - channel, begin, begin + kBlock < n ? begin + kBlock : n);
}

template <class T>
void normalize(const Normalization<T>& a, int64_t n, const T* z, T* y) {
  over_channels<T>(n, a.channels, [&](int64_t channel, int64_t count, int64_t begin, int64_t end) {
    const Channels<T> c(a, channel, count);
    for (int64_t i = begin; i < end; ++i) {
      typename Vector<T>::Lanes lanes;
      load(z + i * a.channels + channel, count, lanes);
      lanes = (lanes - c.mean) * c.scale + c.shift;
      activate<T>(a.activation, a.slope, &lanes, 1);
      store<T>(lanes, count, y + i * a.channels + channel);
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
  over_channels<T>(n, a.channels, [&](int64_t channel, int64_t count, int64_t begin, int64_t end) {
    const Channels<T> c(a, channel, count);
    typename Vector<T>::Lanes first = {}, second = {};
    for (int64_t i = begin; i < end; ++i) {
      const int64_t at = i * a.channels + channel;
      typename Vector<T>::Lanes g, centred;
      gradient_of_row(a, c, grad + at, z + at, count, g, centred);
      first += g;
      second += g * centred;
    }
    for (int i = 0; i < kLanes<T> && i < count; ++i) {
      sums[channel + i] += first[i];
      sums[a.channels + channel + i] += second[i];
    }
  });
}

template <class T>
void gradient(const Normalization<T>& a, const T* coefficients, int64_t n, const T* grad, const T* z, T* out) {
  over_channels<T>(n, a.channels, [&](int64_t channel, int64_t count, int64_t begin, int64_t end) {
    const Channels<T> c(a, channel, count);
    typename Vector<T>::Lanes first, second;
    load(coefficients + channel, count, first);
    load(coefficients + a.channels + channel, count, second);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t at = i * a.channels + channel;
      typename Vector<T>::Lanes g, centred;
      gradient_of_row(a, c, grad + at, z + at, count, g, centred);
      store<T>(c.scale * g - first - second * centred, count, out + at);
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
