// The CPU kernels of convolutions with a 4x4 kernel, stride 2 and padding 1, as their bindings see them. T is float or
// double. A small picture [N, H, W, S] and a big one [N, 2H, 2W, B] are related by a weight [S, B, 4, 4]: "down" is the
// convolution, "up" its adjoint, the transposed convolution. Each is the other's gradient.
#pragma once
#include <cstdint>

namespace pygen {

enum Activation : int64_t { kNone, kRelu, kLeakyRelu, kTanh, kSigmoid };

template <class T>
struct Weight {
  T* data;
  int64_t small, big, row, column;  // strides
};

// Up or down. What is packed is the kernel's own; where there are moments, items leave among them, for the pixels that
// they wrote: their number, and of each channel the mean and the sum of squared deviations from it.
template <class T>
struct Correlation {
  bool up;
  int64_t images, height, width;  // sides of the small picture
  int64_t channels, out_channels;
  const T* x;  // NHWC, as all pictures here
  T* out;
  const T* bias;  // [out_channels], or null
  int64_t activation;
  T slope;
  int64_t parts;    // of the batch, equally large: no item has to do with two of them
  double* moments;  // [summaries, 1 + 2 * out_channels], or null
  const T* packed;
};

template <class T>
struct CorrelationKernels {
  // Of what is packed, in numbers; and by how many items it is written.
  int64_t (*packed_size)(const Correlation<T>& a);
  int64_t (*pack_items)(const Correlation<T>& a);
  void (*pack)(const Correlation<T>& a, const Weight<const T>& weight, int64_t item, T* packed);
  int64_t (*items)(const Correlation<T>& a);
  int64_t (*summaries)(const Correlation<T>& a);  // equally many of each part, and in their order
  int64_t (*scratch_size)(const Correlation<T>& a);
  void (*run)(const Correlation<T>& a, int64_t item, T* scratch);
};

// The weight's gradient of a part of the batch, in items, each with its own part of the result.
template <class T>
struct WeightGradient {
  int64_t images, height, width;  // of the small picture
  int64_t small_channels, big_channels;
  int64_t parts;  // that are computed at a time
  const T *small, *big;
  Weight<T> out;
};

template <class T>
struct WeightGradientKernels {
  int64_t parts;  // that are worth their sums, of a batch of many pictures
  int64_t (*items)(const WeightGradient<T>& a);
  int64_t (*scratch_size)(const WeightGradient<T>& a);
  void (*run)(const WeightGradient<T>& a, int64_t item, T* scratch);
};

// y = act((z - mean) * scale + shift) for rows z [n, channels].
template <class T>
struct Normalization {
  const T *mean, *scale, *shift;  // [channels]
  int64_t channels, activation;
  T slope;
};

template <class T>
struct RowKernels {
  // to [columns, rows] = from [rows, columns]: a picture in NCHW becomes one in NHWC, or the other way round.
  void (*transpose)(int64_t rows, int64_t columns, const T* from, T* to);
  void (*normalize)(const Normalization<T>& a, int64_t n, const T* z, T* y);
  // grad * act'(y) of n numbers.
  void (*activation_gradient)(int64_t activation, T slope, int64_t n, const T* grad, const T* y, T* out);
  // Adds rows to sums [channels].
  void (*column_sums)(int64_t channels, int64_t n, const T* x, double* sums);
  // Adds g and g * (z - mean), with g = grad * act'(y), to sums [2, channels].
  void (*gradient_sums)(const Normalization<T>& a, int64_t n, const T* grad, const T* z, double* sums);
  // scale * g - coefficients[0] - coefficients[1] * (z - mean), coefficients [2, channels].
  void (*gradient)(const Normalization<T>& a, const T* coefficients, int64_t n, const T* grad, const T* z, T* out);
};

// Compiled once per instruction set.
namespace baseline {
extern const CorrelationKernels<float> kTiledFloat, kDirectFloat;
extern const WeightGradientKernels<float> kTiledGradientFloat, kDirectGradientFloat;
extern const RowKernels<float> kRowsFloat;
extern const CorrelationKernels<double> kTiledDouble, kDirectDouble;
extern const WeightGradientKernels<double> kTiledGradientDouble, kDirectGradientDouble;
extern const RowKernels<double> kRowsDouble;
}  // namespace baseline
namespace avx2 {
extern const CorrelationKernels<float> kTiledFloat, kDirectFloat;
extern const WeightGradientKernels<float> kTiledGradientFloat, kDirectGradientFloat;
extern const RowKernels<float> kRowsFloat;
extern const CorrelationKernels<double> kTiledDouble, kDirectDouble;
extern const WeightGradientKernels<double> kTiledGradientDouble, kDirectGradientDouble;
extern const RowKernels<double> kRowsDouble;
}  // namespace avx2
namespace avx512 {
extern const CorrelationKernels<float> kTiledFloat, kDirectFloat;
extern const WeightGradientKernels<float> kTiledGradientFloat, kDirectGradientFloat;
extern const RowKernels<float> kRowsFloat;
extern const CorrelationKernels<double> kTiledDouble, kDirectDouble;
extern const WeightGradientKernels<double> kTiledGradientDouble, kDirectGradientDouble;
extern const RowKernels<double> kRowsDouble;
}  // namespace avx512

}  // namespace pygen
