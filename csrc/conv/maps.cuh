// Convolutions of kernel 4, stride 2 and padding 1 relate a small map [batch, height, width, small channels] and a
// large one [batch, 2 height, 2 width, large channels] by a weight [small channels, 16 taps, large channels]: pixel
// (i, j) of the small map and tap (k, l) meet (2 i - 1 + k, 2 j - 1 + l) of the large one. Down (a convolution, the
// gradient of a transposed one) goes from large to small; up (a transposed one, the gradient of a convolution) back.
#pragma once
#include "../real.cuh"

namespace pygen {

constexpr int kTaps = 16;

struct Maps {
  int64_t batch;
  int height, width;  // of the small map
  int small, large;   // channels
};

// What half precision is computed in.
template <class T>
struct ComputedIn {
  using Type = float;
};
template <>
struct ComputedIn<double> {
  using Type = double;
};
template <class T>
using Computed = typename ComputedIn<T>::Type;

// kSize elements at once: 16 bytes, or one where channels are not multiples of that.
template <class T, int kSize>
struct alignas(kSize * sizeof(T)) Several {
  T values[kSize];
};

template <class T, int kSize>
__device__ __forceinline__ void load_several(const T* from, Computed<T> (&to)[kSize]) {
  const Several<T, kSize> loaded = *reinterpret_cast<const Several<T, kSize>*>(from);
#pragma unroll
  for (int i = 0; i < kSize; ++i) to[i] = widened(loaded.values[i]);
}

template <class T, int kSize>
__device__ __forceinline__ void store_several(const Computed<T> (&from)[kSize], T* to) {
  Several<T, kSize> rounded;
#pragma unroll
  for (int i = 0; i < kSize; ++i) round_to(from[i], rounded.values[i]);
  *reinterpret_cast<Several<T, kSize>*>(to) = rounded;
}

// Two sums of a channel, or the mean and the sum of squared differences from it.
template <class Real>
struct alignas(2 * sizeof(Real)) Sums {
  Real first, second;
};

enum class Nonlinear { kNone, kRelu, kLeakyRelu, kTanh, kSigmoid };

template <class Real>
struct Activated {
  Nonlinear function;
  Real slope;  // of the leaky one, at least 0
};

__device__ __forceinline__ float fused(float a, float b, float c) { return fmaf(a, b, c); }
__device__ __forceinline__ double fused(double a, double b, double c) { return fma(a, b, c); }
__device__ __forceinline__ float exponential(float x) { return expf(x); }
__device__ __forceinline__ double exponential(double x) { return exp(x); }
__device__ __forceinline__ float tangent(float x) { return tanhf(x); }
__device__ __forceinline__ double tangent(double x) { return tanh(x); }
__device__ __forceinline__ float root(float x) { return sqrtf(x); }
__device__ __forceinline__ double root(double x) { return sqrt(x); }

template <class Real>
__device__ __forceinline__ Real activate(Real x, Activated<Real> a) {
  switch (a.function) {
    case Nonlinear::kNone:
      return x;
    case Nonlinear::kRelu:
      return x < 0 ? Real{0} : x;  // NaN stays
    case Nonlinear::kLeakyRelu:
      return x > 0 ? x : x * a.slope;
    case Nonlinear::kTanh:
      return tangent(x);
    case Nonlinear::kSigmoid:
      return Real{1} / (Real{1} + exponential(-x));
  }
  return x;
}

// The derivative where the activation's value is y.
template <class Real>
__device__ __forceinline__ Real derivative(Real y, Activated<Real> a) {
  switch (a.function) {
    case Nonlinear::kNone:
      return 1;
    case Nonlinear::kRelu:
      return y > 0 ? Real{1} : Real{0};
    case Nonlinear::kLeakyRelu:
      return y > 0 ? Real{1} : a.slope;
    case Nonlinear::kTanh:
      return 1 - y * y;
    case Nonlinear::kSigmoid:
      return y * (1 - y);
  }
  return 1;
}

// How a map is computed from the other: from (rows of its source, per pixel of the small map) and taps. Up, each of the
// four parities of rows and columns of the large map has taps of its own.
template <bool kUp>
struct Direction {
  static constexpr int kParities = kUp ? 4 : 1, kSourceTaps = kTaps / kParities, kStride = kUp ? 1 : 2;

  // Rows or columns between pixel kStride * i of the source and what tap `number` of a side meets.
  static __device__ __forceinline__ int offset(int number, int parity) { return kUp ? parity - number : number - 1; }
  // The tap of the weight's.
  static __device__ __forceinline__ int weight_tap(int number, int parity) {
    if (!kUp) return number;
    const int k = 1 - parity / 2 + number / 2 * 2, l = 1 - parity % 2 + number % 2 * 2;
    return 4 * k + l;
  }
  static __device__ __forceinline__ int row_offset(int number, int parity) {
    return kUp ? offset(number / 2, parity / 2) : offset(number / 4, 0);
  }
  static __device__ __forceinline__ int column_offset(int number, int parity) {
    return kUp ? offset(number % 2, parity % 2) : offset(number % 4, 0);
  }
  static __device__ __forceinline__ int source_channels(const Maps& m) { return kUp ? m.small : m.large; }
  static __device__ __forceinline__ int channels(const Maps& m) { return kUp ? m.large : m.small; }
  static __device__ __forceinline__ int source_height(const Maps& m) { return kUp ? m.height : 2 * m.height; }
  static __device__ __forceinline__ int source_width(const Maps& m) { return kUp ? m.width : 2 * m.width; }
  // Which pixel of the result belongs to a pixel of the small map.
  static __device__ __forceinline__ int64_t target(const Maps& m, int64_t pixel, int parity) {
    if (!kUp) return pixel;
    const int64_t row = pixel / m.width;
    return (2 * row + parity / 2) * 2 * m.width + 2 * (pixel - row * m.width) + parity % 2;
  }
};

// A pixel of the small map, and where it lies.
struct Pixel {
  int64_t image;
  int row, column;
};

__device__ __forceinline__ Pixel pixel_at(const Maps& m, int64_t pixel) {
  const int64_t row = pixel / m.width, image = row / m.height;
  return {image, static_cast<int>(row - image * m.height), static_cast<int>(pixel - row * m.width)};
}

// The blocks of a product take pixels of the small map in tiles, none of which has pixels of two parts of the batch.
struct Tiling {
  int64_t pixels;  // of a part
  int64_t tiles;   // of a part
  int rows;        // of a tile
};

// Pixels [first, first + count) of the small map, which are a block's.
struct TileRows {
  int64_t first;
  int count;
};

__device__ __forceinline__ TileRows rows_of(const Tiling& t, int64_t tile) {
  const int64_t part = tile / t.tiles, begin = (tile - part * t.tiles) * t.rows, left = t.pixels - begin;
  return {part * t.pixels + begin, left < t.rows ? static_cast<int>(left) : t.rows};
}

}  // namespace pygen
