// Batch norm and activations over rows of channels. CMake compiles this file once per instruction set, PYGEN_ISA naming
// the namespace.
#include "activation.h"
#include "bfloat16.h"
#include "conv.h"
#include "tile.h"

namespace pygen::PYGEN_ISA {
namespace {

// Rows and vectors of channels taken together: what belongs to channels is loaded once for many rows, and memory is
// read nearly as it lies.
constexpr int64_t kBlock = 32, kVectors = 16;

// What belongs to a vector of channels.
template <class T>
struct Channels {
  typename Vector<T>::Lanes mean, scale, shift;
  typename Vector<T>::Lanes first = {}, second = {};  // sums, or coefficients

  void load_from(const Normalization<T>& a, int64_t channel, const Number<T>* coefficients) {
    const int64_t count = a.channels - channel;
    load(a.mean + channel, count, mean);
    load(a.scale + channel, count, scale);
    load(a.shift + channel, count, shift);
    if (!coefficients) return;
    load(coefficients + channel, count, first);
    load(coefficients + a.channels + channel, count, second);
  }
};

// Calls f(channels, place, count) for vectors of channels of n rows, and finish(channels, channel, count) where a block
// has ended; of a vector the first `count` lanes belong to channels, or all.
template <class T, class F, class G>
inline void over_blocks(const Normalization<T>& a, int64_t n, const Number<T>* coefficients, const F& f,
                        const G& finish) {
  constexpr int64_t kWidth = kVectors * kLanes<T>;
  for (int64_t begin = 0; begin < n; begin += kBlock)
    for (int64_t first = 0; first < a.channels; first += kWidth) {
      const int64_t vectors = least(kVectors, over(a.channels - first, kLanes<T>));
      Channels<T> channels[kVectors];
      for (int64_t v = 0; v < vectors; ++v) channels[v].load_from(a, first + v * kLanes<T>, coefficients);
      for (int64_t i = begin; i < least(begin + kBlock, n); ++i)
        for (int64_t v = 0; v < vectors; ++v) {
          const int64_t channel = first + v * kLanes<T>;
          f(channels[v], i * a.channels + channel, a.channels - channel);
        }
      for (int64_t v = 0; v < vectors; ++v)
        finish(channels[v], first + v * kLanes<T>, a.channels - first - v * kLanes<T>);
    }
}

template <class T>
void normalize(const Normalization<T>& a, int64_t n, const T* z, T* y) {
  const auto of_vector = [&](const Channels<T>& c, int64_t at, int64_t count) {
    typename Vector<T>::Lanes lanes;
    load(z + at, count, lanes);
    lanes = (lanes - c.mean) * c.scale + c.shift;
    activate<Number<T>>(a.activation, a.slope, &lanes, 1);
    store(lanes, count, y + at);
  };
  over_blocks<T>(a, n, nullptr, of_vector, [](const Channels<T>&, int64_t, int64_t) {});
}

// grad * act'(y)
template <class T>
inline void pull_back(int64_t activation, Number<T> slope, const typename Vector<T>::Lanes& y,
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
void activation_gradient(int64_t activation, Number<T> slope, int64_t n, const T* grad, const T* y, T* out) {
  for (int64_t i = 0; i < n; i += kLanes<T>) {
    typename Vector<T>::Lanes lanes, result;
    load(grad + i, n - i, lanes);
    load(y + i, n - i, result);
    pull_back<T>(activation, slope, result, lanes);
    store(lanes, n - i, out + i);
  }
}

template <class T>
void column_sums(int64_t channels, int64_t n, const T* x, double* sums) {
  for (int64_t i = 0; i < n; ++i)
    for (int64_t c = 0; c < channels; c += kLanes<T>) {
      typename Vector<T>::Lanes lanes;
      load(x + i * channels + c, channels - c, lanes);
      for (int64_t j = 0; j < least(kLanes<T>, channels - c); ++j) sums[c + j] += lanes[j];
    }
}

// grad * act'(y), and z - mean, of a vector of channels of a row.
template <class T>
inline void gradient_of_row(const Normalization<T>& a, const Channels<T>& c, const T* grad, const T* z, int64_t count,
                            typename Vector<T>::Lanes& g, typename Vector<T>::Lanes& centred) {
  load(grad, count, g);
  load(z, count, centred);
  centred -= c.mean;
  typename Vector<T>::Lanes y = centred * c.scale + c.shift;
  if (a.activation == kTanh || a.activation == kSigmoid) activate<Number<T>>(a.activation, a.slope, &y, 1);
  pull_back<T>(a.activation, a.slope, y, g);
}

template <class T>
void gradient_sums(const Normalization<T>& a, int64_t n, const T* grad, const T* z, double* sums) {
  const auto of_vector = [&](Channels<T>& c, int64_t at, int64_t count) {
    typename Vector<T>::Lanes g, centred;
    gradient_of_row(a, c, grad + at, z + at, count, g, centred);
    c.first += g;
    c.second += g * centred;
  };
  over_blocks<T>(a, n, nullptr, of_vector, [&](const Channels<T>& c, int64_t channel, int64_t count) {
    for (int64_t i = 0; i < least(kLanes<T>, count); ++i) {
      sums[channel + i] += c.first[i];
      sums[a.channels + channel + i] += c.second[i];
    }
  });
}

template <class T>
void gradient(const Normalization<T>& a, const Number<T>* coefficients, int64_t n, const T* grad, const T* z, T* out) {
  const auto of_vector = [&](const Channels<T>& c, int64_t at, int64_t count) {
    typename Vector<T>::Lanes g, centred;
    gradient_of_row(a, c, grad + at, z + at, count, g, centred);
    store(c.scale * g - c.first - c.second * centred, count, out + at);
  };
  over_blocks<T>(a, n, coefficients, of_vector, [](const Channels<T>&, int64_t, int64_t) {});
}

template <class T>
void transpose_matrix(int64_t rows, int64_t columns, const T* from, T* to) {
  for (int64_t column = 0; column < columns; column += kLanes<T>)
    for (int64_t row = 0; row < rows; row += kLanes<T>) {
      const T* place = from + row * columns + column;
      T* target = to + column * rows + row;
      if (rows - row >= kLanes<T> && columns - column >= kLanes<T>) {
        transpose(place, columns, target, rows);
      } else {
        for (int64_t j = 0; j < least(kLanes<T>, columns - column); ++j)
          for (int64_t i = 0; i < least(kLanes<T>, rows - row); ++i) target[j * rows + i] = place[i * columns + j];
      }
    }
}

template <class T>
constexpr RowKernels<T> kKernels = {transpose_matrix<T>, normalize<T>,     activation_gradient<T>,
                                    column_sums<T>,      gradient_sums<T>, gradient<T>};

}  // namespace

const RowKernels<float> kRowsFloat = kKernels<float>;
const RowKernels<double> kRowsDouble = kKernels<double>;
const RowKernels<BFloat16> kRowsBFloat16 = kKernels<BFloat16>;

}  // namespace pygen::PYGEN_ISA
