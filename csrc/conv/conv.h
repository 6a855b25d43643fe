// The CPU kernels of convolutions with a 4x4 kernel, stride 2 and padding 1, as their bindings see them. T is float or
// double, or BFloat16 for what is stored so and computed in float. A small picture [N, H, W, S] and a big one [N, 2H,
// 2W, B] are related by a weight [S, B, 4, 4]: "down" is the convolution, "up" its adjoint, the transposed convolution.
// Each is the other's gradient.
#pragma once
#include <cstdint>
#include <type_traits>

namespace pygen {

enum Activation : int64_t { kNone, kRelu, kLeakyRelu, kTanh, kSigmoid };

struct BFloat16 {
  uint16_t bits;
};

// What T is computed in.
template <class T>
using Number = std::conditional_t<std::is_same_v<T, BFloat16>, float, T>;
// How many of T take the memory of one of these.
template <class T>
constexpr int64_t kUnits = sizeof(Number<T>) / sizeof(T);
template <class T>
constexpr bool kStoresNumbers = kUnits<T> == 1;

template <class T>
struct Weight {
  T* data;
  int64_t small, big, row, column;  // strides
};

// Up or down. What is packed is the kernel's own, as its scratch is, counted in numbers of T; where there are moments,
// items leave among them, for the pixels that they wrote: their number, and of each channel the mean and the sum of
// squared deviations from it.
template <class T>
struct Correlation {
  bool up;
  int64_t images, height, width;  // sides of the small picture
  int64_t channels, out_channels;
  const T* x;  // NHWC, as all pictures here
  T* out;
  const Number<T>* bias;  // [out_channels], or null
  int64_t activation;
  Number<T> slope;
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

// The weight's gradient of a part of the batch, in items, each with its own part of the result, from pictures as they
// are or from what is packed of them.
template <class T>
struct WeightGradient {
  int64_t images, height, width;  // of the small picture
  int64_t small_channels, big_channels;
  int64_t parts;  // that are computed at a time
  const T *small, *big;
  Weight<Number<T>> out;
  const T* packed;
};

template <class T>
struct WeightGradientKernels {
  int64_t parts;  // that are worth their sums, of a batch of many pictures
  int64_t (*items)(const WeightGradient<T>& a);
  int64_t (*scratch_size)(const WeightGradient<T>& a);
  void (*run)(const WeightGradient<T>& a, int64_t item, T* scratch);
  // Null where nothing is packed.
  int64_t (*packed_size)(const WeightGradient<T>& a);
  int64_t (*pack_items)(const WeightGradient<T>& a);
  void (*pack)(const WeightGradient<T>& a, int64_t item, T* packed);
};

// y = act((z - mean) * scale + shift) for rows z [n, channels].
template <class T>
struct Normalization {
  const Number<T>*mean, *scale, *shift;  // [channels]
  int64_t channels, activation;
  Number<T> slope;
};

template <class T>
struct RowKernels {
  // to [columns, rows] = from [rows, columns]: a picture in NCHW becomes one in NHWC, or the other way round.
  void (*transpose)(int64_t rows, int64_t columns, const T* from, T* to);
  void (*normalize)(const Normalization<T>& a, int64_t n, const T* z, T* y);
  // grad * act'(y) of n numbers.
  void (*activation_gradient)(int64_t activation, Number<T> slope, int64_t n, const T* grad, const T* y, T* out);
  // Adds rows to sums [channels].
  void (*column_sums)(int64_t channels, int64_t n, const T* x, double* sums);
  // Adds g and g * (z - mean), with g = grad * act'(y), to sums [2, channels].
  void (*gradient_sums)(const Normalization<T>& a, int64_t n, const T* grad, const T* z, double* sums);
  // scale * g - coefficients[0] - coefficients[1] * (z - mean), coefficients [2, channels].
  void (*gradient)(const Normalization<T>& a, const Number<T>* coefficients, int64_t n, const T* grad, const T* z,
                   T* out);
};

// Compiled once per instruction set.
namespace baseline {
extern const CorrelationKernels<float> kTiledFloat, kDirectFloat;
extern const WeightGradientKernels<float> kTiledGradientFloat, kDirectGradientFloat;
extern const RowKernels<float> kRowsFloat;
extern const CorrelationKernels<double> kTiledDouble, kDirectDouble;
extern const WeightGradientKernels<double> kTiledGradientDouble, kDirectGradientDouble;
extern const RowKernels<double> kRowsDouble;
extern const CorrelationKernels<BFloat16> kDirectBFloat16;
extern const WeightGradientKernels<BFloat16> kDirectGradientBFloat16;
extern const RowKernels<BFloat16> kRowsBFloat16;
}  // namespace baseline
namespace avx2 {
extern const CorrelationKernels<float> kTiledFloat, kDirectFloat;
extern const WeightGradientKernels<float> kTiledGradientFloat, kDirectGradientFloat;
extern const RowKernels<float> kRowsFloat;
extern const CorrelationKernels<double> kTiledDouble, kDirectDouble;
extern const WeightGradientKernels<double> kTiledGradientDouble, kDirectGradientDouble;
extern const RowKernels<double> kRowsDouble;
extern const CorrelationKernels<BFloat16> kDirectBFloat16;
extern const WeightGradientKernels<BFloat16> kDirectGradientBFloat16;
extern const RowKernels<BFloat16> kRowsBFloat16;
}  // namespace avx2
namespace avx512 {
extern const CorrelationKernels<float> kTiledFloat, kDirectFloat;
extern const WeightGradientKernels<float> kTiledGradientFloat, kDirectGradientFloat;
extern const RowKernels<float> kRowsFloat;
extern const CorrelationKernels<double> kTiledDouble, kDirectDouble;
extern const WeightGradientKernels<double> kTiledGradientDouble, kDirectGradientDouble;
extern const RowKernels<double> kRowsDouble;
extern const CorrelationKernels<BFloat16> kDirectBFloat16;
extern const WeightGradientKernels<BFloat16> kDirectGradientBFloat16;
extern const RowKernels<BFloat16> kRowsBFloat16;
}  // namespace avx512
// Only where the processor has the instructions.
namespace amx {
extern const CorrelationKernels<BFloat16> kBlocks;
extern const WeightGradientKernels<BFloat16> kBlocksGradient;
}  // namespace amx

}  // namespace pygen
