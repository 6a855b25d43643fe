// Reparameterization on the GPU. A block is [threads of a row, rows]: of a row 8 threads, a warp or the whole block.
// Each thread takes one item after another: as many elements, counted through the matrix, as make 16 bytes or a block
// of draws, whichever is more.
#pragma once
#include "../gaussian/draw.cuh"
#include "../ptx.h"
#include "exponential.h"
#include "reparameterize.h"

namespace pygen {

constexpr int kRowThreads = 256;  // a block's: 8 warps to one barrier, and 4 blocks to a multiprocessor's registers

template <class T>
struct ItemTraits {
  using Out = T;
  static constexpr int kItem = 4;
};
template <>
struct ItemTraits<__half> {
  using Out = float;
  static constexpr int kItem = 8;
};
template <>
struct ItemTraits<__nv_bfloat16> : ItemTraits<__half> {};

// The elements [first, last) of an item that belong to its row: all of them, except at the row's ends.
struct Span {
  int first, last;
};

// Those elements at `from`, the address of the item's first; 0 for the others.
template <int kItem, class T, class Out>
__device__ __forceinline__ void load(const T* from, Span span, Out (&to)[kItem]) {
  alignas(16) T item[kItem];
  if (span.last - span.first == kItem && is_aligned(from)) {
    constexpr int kPerLoad = 16 / sizeof(T);
    for (int i = 0; i < kItem; i += kPerLoad)
      *reinterpret_cast<int4*>(item + i) = *reinterpret_cast<const int4*>(from + i);
  } else {
    for (int i = 0; i < kItem; ++i) item[i] = i >= span.first && i < span.last ? from[i] : T(0.0f);
  }
  for (int i = 0; i < kItem; ++i) to[i] = widened(item[i]);
}

template <int kItem, class T, class Out>
__device__ __forceinline__ void store(T* to, Span span, const Out (&from)[kItem]) {
  alignas(16) T item[kItem];
  for (int i = 0; i < kItem; ++i) round_to(from[i], item[i]);
  if (span.last - span.first == kItem) {
    constexpr int kPerStore = 16 / sizeof(T);
    for (int i = 0; i < kItem; i += kPerStore) *reinterpret_cast<int4*>(to + i) = *reinterpret_cast<int4*>(item + i);
  } else {
    for (int i = 0; i < kItem; ++i)
      if (i >= span.first && i < span.last) to[i] = item[i];
  }
}

// Calls each(begin, column, span, eps) for this thread's items of its row: the item's first element in the matrix and
// in the row (negative, if it belongs to the row before), those of it that count, and the noise of all.
template <class T, class Each>
__device__ __forceinline__ void items(const int64_t* state, int64_t row, int64_t columns, const Each& each) {
  constexpr int kItem = ItemTraits<T>::kItem;
  const State start = {static_cast<uint64_t>(state[0]), static_cast<uint64_t>(state[1])};
  const int64_t first = row * columns, last = first + columns;
  for (int64_t begin = (first / kItem + threadIdx.x) * kItem; begin < last; begin += blockDim.x * kItem) {
    typename ItemTraits<T>::Out eps[kItem];
    for (int i = 0; i < kItem; i += 4) draw(start, (begin + i) / 4, eps + i);
    const Span span = {begin < first ? static_cast<int>(first - begin) : 0,
                       last - begin < kItem ? static_cast<int>(last - begin) : kItem};
    each(begin, begin - first, span, eps);
  }
}

__device__ __forceinline__ int64_t this_row() { return int64_t{blockIdx.x} * blockDim.y + threadIdx.y; }

template <class Out>
struct WarpSums {
  Out sum[kRowThreads / 32];
};

// The sum over a row's threads, in an order that depends on nothing but their number; all threads of the block call it.
template <class Out>
__device__ __forceinline__ Out row_sum(Out x) {
  for (unsigned bits = 1; bits < blockDim.x && bits < 32; bits *= 2) x += __shfl_xor_sync(0xFFFFFFFF, x, bits);
  if (blockDim.x > 32) {
    WarpSums<Out>& warps = static_shared<WarpSums<Out>>();
    if (threadIdx.x % 32 == 0) warps.sum[threadIdx.x / 32] = x;
    __syncthreads();
    x = 0;
    for (int i = 0; i < kRowThreads / 32; ++i) x += warps.sum[i];
  }
  return x;
}

// state: (seed, offset). n: rows.
template <class T, class Out = typename ItemTraits<T>::Out>
__global__ void __launch_bounds__(kRowThreads)
    reparameterize_kernel(const int64_t* __restrict__ state, Reparameterization<T, Out> a, int64_t n) {
  constexpr int kItem = ItemTraits<T>::kItem;
  const int64_t row = this_row();
  Out sum = 0;
  if (row < n) {
    const T *mu_row = a.mu.data + row * a.mu.stride, *logvar_row = a.logvar.data + row * a.logvar.stride;
    items<T>(state, row, a.columns, [&](int64_t begin, int64_t column, Span span, const Out(&eps)[kItem]) {
      Out mu[kItem], logvar[kItem], z[kItem];
      load(mu_row + column, span, mu);
      load(logvar_row + column, span, logvar);
      for (int i = 0; i < kItem; ++i) {
        const Spread<Out> s = spread(logvar[i]);
        z[i] = s.deviation * eps[i] + mu[i];
        sum += mu[i] * mu[i] + s.excess - logvar[i];  // 0 for what was not loaded
      }
      store(a.z + begin, span, z);
    });
  }
  sum = row_sum(sum);
  if (row < n && threadIdx.x == 0) a.kl[row] = sum * Out{0.5};
}

template <class T, class Out = typename ItemTraits<T>::Out>
__global__ void __launch_bounds__(kRowThreads)
    reparameterize_backward_kernel(const int64_t* __restrict__ state, ReparameterizationGradient<T, Out> a, int64_t n) {
  constexpr int kItem = ItemTraits<T>::kItem;
  const int64_t row = this_row();
  if (row >= n) return;
  const T *mu_row = a.mu.data + row * a.mu.stride, *logvar_row = a.logvar.data + row * a.logvar.stride;
  const Out grad_kl = a.grad_kl[row];
  items<T>(state, row, a.columns, [&](int64_t begin, int64_t column, Span span, const Out(&eps)[kItem]) {
    Out mu[kItem], logvar[kItem], grad_z[kItem];
    load(mu_row + column, span, mu);
    load(logvar_row + column, span, logvar);
    load(a.grad_z + begin, span, grad_z);
    for (int i = 0; i < kItem; ++i) {
      const Spread<Out> s = spread(logvar[i]);
      mu[i] = grad_kl * mu[i] + grad_z[i];
      logvar[i] = (eps[i] * s.deviation * grad_z[i] + s.excess * grad_kl) * Out{0.5};
    }
    store(a.grad_mu + begin, span, mu);
    store(a.grad_logvar + begin, span, logvar);
  });
}

}  // namespace pygen
