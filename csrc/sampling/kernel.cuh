// Independent features and components by weight, on the GPU: one thread draws one block of four after another.
#pragma once
#include "../gaussian/draw.cuh"
#include "pick.h"
#include "sampling.h"

namespace pygen {

constexpr int kSampleThreads = 256;

// An index outside [0, components) names no Gaussian: its row is NaN.
__device__ __forceinline__ bool is_known(int64_t k, int64_t components) {
  return static_cast<uint64_t>(k) < static_cast<uint64_t>(components);
}

template <class T>
__device__ __forceinline__ T not_a_number() {
  return static_cast<T>(__int_as_float(0x7FC00000));
}

// Four numbers, by 16 bytes.
template <class T>
__device__ __forceinline__ void load_four(const T* from, T (&to)[4]) {
  for (int i = 0; i < 4; i += 16 / sizeof(T)) {
    const int4 bytes = __ldg(reinterpret_cast<const int4*>(from + i));
    memcpy(to + i, &bytes, sizeof bytes);
  }
}

template <class T>
__device__ __forceinline__ void store_four(const T (&from)[4], T* to) {
  for (int i = 0; i < 4; i += 16 / sizeof(T)) {
    int4 bytes;
    memcpy(&bytes, from + i, sizeof bytes);
    *reinterpret_cast<int4*>(to + i) = bytes;
  }
}

// state: (seed, offset). n: rows. kWhole: a row is a whole number of blocks, and all pointers are 16-byte aligned.
// Components, and bytes of a row of means or scales, are below 2^32: an address then is one multiplication.
template <class T, bool kWhole, bool kFast>
__global__ void __launch_bounds__(kSampleThreads)
    diagonal_kernel(const int64_t* __restrict__ state, DiagonalGaussians<T> a, int64_t components, int64_t n) {
  const State start = {static_cast<uint64_t>(state[0]), static_cast<uint64_t>(state[1])};
  const int64_t width = (a.columns + 3) / 4, stride = int64_t{gridDim.x} * kSampleThreads;
  // The stride in rows and in blocks of a row: no division in the loop.
  const int64_t row_stride = stride / width;
  const int rest = static_cast<int>(stride % width);
  int64_t block = int64_t{blockIdx.x} * kSampleThreads + threadIdx.x, row = block / width;
  int in_row = static_cast<int>(block % width);
  const uint32_t mean_stride = static_cast<uint32_t>(a.columns), scale_stride = static_cast<uint32_t>(a.scale_stride);
  for (; row < n; block += stride, row += row_stride, in_row += rest) {
    if (in_row >= width) {
      in_row -= static_cast<int>(width);
      if (++row >= n) break;
    }
    const int64_t k = __ldg(a.index + row);
    const bool known = is_known(k, components);
    const uint32_t own = known ? static_cast<uint32_t>(k) : 0;
    const int column = 4 * in_row;
    const T *means = a.means + uint64_t{own} * mean_stride + column, *scales = a.scales + uint64_t{own} * scale_stride;
    T* out = a.out + 4 * block;
    T x[4];
    draw<kFast>(start, static_cast<uint64_t>(block), x);
    if (kWhole) {
      T mean[4], scale[4];
      load_four(means, mean);
      if (a.spherical)
        for (int i = 0; i < 4; ++i) scale[i] = __ldg(scales);
      else
        load_four(scales + column, scale);
      for (int i = 0; i < 4; ++i) x[i] = known ? x[i] * scale[i] + mean[i] : not_a_number<T>();
      store_four(x, out);
    } else {
      const int count = a.columns - column < 4 ? static_cast<int>(a.columns - column) : 4;
      out = a.out + row * a.columns + column;
      for (int i = 0; i < 4; ++i)
        if (i < count) {
          const T scale = __ldg(a.spherical ? scales : scales + column + i);
          out[i] = known ? x[i] * scale + __ldg(means + i) : not_a_number<T>();
        }
    }
  }
}

// totals: running sums in the order of the weights, as on the CPU: by one thread, since any other order rounds
// differently.
__global__ void __launch_bounds__(1)
    totals_kernel(const double* __restrict__ weights, int64_t components, double* totals) {
  double total = 0;
  for (int64_t k = 0; k < components; ++k) totals[k] = total += weights[k];
}

// out: n picks, 16-byte aligned.
__global__ void __launch_bounds__(kSampleThreads)
    pick_kernel(const int64_t* __restrict__ state, const double* __restrict__ totals, int64_t components, int64_t n,
                int64_t* __restrict__ out) {
  const State start = {static_cast<uint64_t>(state[0]), static_cast<uint64_t>(state[1])};
  const int64_t block = int64_t{blockIdx.x} * kSampleThreads + threadIdx.x;
  if (4 * block >= n) return;
  int64_t picks[4];
  pick(start, static_cast<uint64_t>(block), totals, components, picks);
  int64_t* to = out + 4 * block;
  if (4 * block + 4 <= n)
    store_four(picks, to);
  else
    for (int i = 0; i < 4 && 4 * block + i < n; ++i) to[i] = picks[i];
}

// In a launch of its own, since every block of the draw reads the offset.
__global__ void __launch_bounds__(1) advance_rows_kernel(int64_t* state, int64_t blocks) { state[1] += blocks; }

}  // namespace pygen
