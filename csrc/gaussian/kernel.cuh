// Normal draws on the GPU: one thread draws the blocks of one 16-byte store after another, whatever its position.
#pragma once
#include "draw.cuh"

namespace pygen {

constexpr int kThreads = 256;
// Blocks per multiprocessor that fill it: 2048 resident threads where registers allow. The grid is no larger, and a
// thread strides over the rest, so that a block's start costs nothing.
constexpr int kBlocksPerMultiprocessor = 8;

// Blocks of four draws that make at least one 16-byte store.
template <class T>
constexpr int kBlocksPerItem = sizeof(T) == 2 ? 2 : 1;

template <class T, bool kFast>
__device__ __forceinline__ void write_draws(const int64_t* __restrict__ state, T* __restrict__ out, int64_t n) {
  constexpr int kBlocks = kBlocksPerItem<T>, kDraws = 4 * kBlocks, kPerStore = 16 / sizeof(T);
  const State start = {static_cast<uint64_t>(state[0]), static_cast<uint64_t>(state[1])};
  const int64_t items = (n + kDraws - 1) / kDraws, stride = int64_t{gridDim.x} * kThreads;
  for (int64_t item = int64_t{blockIdx.x} * kThreads + threadIdx.x; item < items; item += stride) {
    alignas(16) T draws[kDraws];
    for (int i = 0; i < kBlocks; ++i) draw<kFast>(start, item * kBlocks + i, draws + 4 * i);
    T* to = out + item * kDraws;
    if ((item + 1) * kDraws <= n) {
      for (int i = 0; i < kDraws; i += kPerStore)
        *reinterpret_cast<int4*>(to + i) = *reinterpret_cast<int4*>(draws + i);
    } else {
      for (int i = 0; i < kDraws; ++i)
        if (item * kDraws + i < n) to[i] = draws[i];
    }
  }
}

// state: (seed, offset). out: n draws, 16-byte aligned.
template <class T>
__global__ void __launch_bounds__(kThreads) normal_kernel(const int64_t* state, T* out, int64_t n) {
  write_draws<T, false>(state, out, n);
}

template <class T>
__global__ void __launch_bounds__(kThreads) fast_normal_kernel(const int64_t* state, T* out, int64_t n) {
  write_draws<T, true>(state, out, n);
}

// In a launch of its own, since every block of the draw reads the offset.
__global__ void advance_kernel(int64_t* state, int64_t blocks) { state[1] += blocks; }

}  // namespace pygen
