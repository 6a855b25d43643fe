// Weighted sums of differences from a mean and of their outer products on the GPU, in float64: small variances are what
// is left of large squares. Only tiles on and above the diagonal are computed.
#pragma once
#include "double_tile.cuh"

namespace pygen {

// Rows of K components.
template <class T>
struct Scattering {
  const T* x;
  int64_t total, dims;     // of x
  const double* mean;      // [K, dims]
  const int64_t* rows;     // [K, stride]: those of x that are a component's, or null: all
  const double* weights;   // [K, stride]
  const int64_t* counts;   // [K] of rows, or null: each has `stride`
  int64_t stride, tiles;   // of a matrix
  int64_t parts;           // of the rows, each with sums of its own
  double *first, *second;  // [parts, K, dims], [parts, K, dims, dims]
};

__host__ __device__ inline int64_t double_tiles(int64_t dims) {
  const int64_t sides = double_sides(dims);
  return sides * (sides + 1) / 2;
}

// This thread's elements of both operands of a slice, and the weights of their rows.
template <class T>
struct Fetched {
  static constexpr int kNumber = DoubleTraits::kDepth * DoubleTraits::kSide / DoubleTraits::kThreads;
  T left[kNumber], right[kNumber];
  double weights[kNumber];
};

template <class T>
__global__ void __launch_bounds__(DoubleTraits::kThreads) scatter_kernel(Scattering<T> a, int64_t components) {
  using D = DoubleTraits;
  constexpr int kStep = D::kThreads / D::kSide;
  DoubleSlice* slices = static_shared<DoubleSlice[2]>();
  int64_t tile = blockIdx.x % a.tiles, top = 0, sides = double_sides(a.dims);
  const int64_t k = blockIdx.x / a.tiles % components, part = blockIdx.x / a.tiles / components;
  for (; tile >= sides; --sides, ++top) tile -= sides;
  const int64_t left = top * D::kSide, right = left + tile * D::kSide;
  const int64_t count = a.counts == nullptr ? a.stride : a.counts[k];
  const int64_t begin = count * part / a.parts, end = count * (part + 1) / a.parts;
  if (begin == end) return;
  const int own = threadIdx.x % D::kSide, line = threadIdx.x / D::kSide;
  const bool has_left = left + own < a.dims, has_right = right + own < a.dims;
  const double* mean = a.mean + k * a.dims;
  const double left_mean = has_left ? mean[left + own] : 0, right_mean = has_right ? mean[right + own] : 0;
  Fetched<T> next;
  const auto fetch = [&](int64_t from) {
    for (int i = 0; i < Fetched<T>::kNumber; ++i) {
      const int64_t at = from + line + i * kStep;
      next.left[i] = next.right[i] = 0;
      next.weights[i] = 0;
      if (at >= end) continue;
      const int64_t row = a.rows == nullptr ? at : a.rows[k * a.stride + at];
      const bool known = row >= 0 && row < a.total;
      next.weights[i] = known ? a.weights[k * a.stride + at] : __longlong_as_double(0x7FF8000000000000);
      if (known && has_left) next.left[i] = a.x[row * a.dims + left + own];
      if (known && has_right) next.right[i] = a.x[row * a.dims + right + own];
    }
  };
  const auto store = [&](DoubleSlice& slice) {
    for (int i = 0; i < Fetched<T>::kNumber; ++i) {
      slice.a[line + i * kStep][own] = next.weights[i] * (next.left[i] - left_mean);
      slice.b[line + i * kStep][own] = next.right[i] - right_mean;
    }
  };
  DoubleSums sums = {};
  double first = 0;
  fetch(begin);
  store(slices[0]);
  int at = 0;
#pragma unroll 1
  for (int64_t from = begin; from < end; from += D::kDepth, at = 1 - at) {
    __syncthreads();
    fetch(from + D::kDepth);
    multiply(slices[at], sums);
    if (tile == 0 && threadIdx.x < D::kSide)
      for (int i = 0; i < D::kDepth; ++i) first += slices[at].a[i][own];
    store(slices[1 - at]);
  }
  const int64_t matrix = part * components + k;
  if (tile == 0 && threadIdx.x < D::kSide && has_left) a.first[matrix * a.dims + left + own] += first;
  const int lane = threadIdx.x % 32;
  for (int m = 0; m < kEighths; ++m)
    for (int n = 0; n < kEighths; ++n)
      for (int i = 0; i < 2; ++i) {
        const int64_t row = left + double_row() + 8 * m + lane / 4;
        const int64_t column = right + double_column() + 8 * n + lane % 4 * 2 + i;
        if (row < a.dims && column < a.dims) a.second[(matrix * a.dims + row) * a.dims + column] += sums[m][n][i];
      }
}

constexpr int kSumThreads = 256;

// Adds up the parts, in their order, to first [K, dims] and both triangles of second [K, dims, dims]; `add`: to what is
// there. One part may be the result itself.
__global__ void __launch_bounds__(kSumThreads)
    sum_parts_kernel(const double* first_parts, const double* second_parts, int64_t parts, int64_t components,
                     int64_t dims, bool add, double* first, double* second) {
  const int64_t index = int64_t{blockIdx.x} * kSumThreads + threadIdx.x, all = components * dims;
  if (index >= all * dims) return;
  const int64_t line = index / dims, column = index % dims, row = line % dims;
  if (row > column) return;
  double total = 0;
  for (int64_t part = 0; part < parts; ++part) total += second_parts[part * all * dims + index];
  if (add) total += second[index];
  second[index] = total;
  if (row != column) {
    second[(line - row + column) * dims + row] = total;
    return;
  }
  total = 0;
  for (int64_t part = 0; part < parts; ++part) total += first_parts[part * all + line];
  if (add) total += first[line];
  first[line] = total;
}

}  // namespace pygen
