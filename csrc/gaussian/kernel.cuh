// Normal draws on the GPU: one thread draws the blocks of one 16-byte store after another, whatever its position.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "box_muller.h"
#include "gaussian.h"

namespace pygen {

constexpr int kThreads = 256;
// Blocks per multiprocessor that fill it: 2048 resident threads where registers allow. The grid is no larger, and a
// thread strides over the rest, so that a block's start costs nothing.
constexpr int kBlocksPerMultiprocessor = 8;

// Draws of a block of four in the type stored, and how many blocks make at least one 16-byte store.
template <class T>
struct NormalTraits;

template <>
struct NormalTraits<float> {
  static constexpr int kBlocks = 1;
  static __device__ __forceinline__ void draw(State state, uint64_t block, float* out) {
    const Words x = philox(state, block, kNormalStream);
    const NormalPair<float> a = box_muller(x.x0, x.x1), b = box_muller(x.x2, x.x3);
    out[0] = a.cosine;
    out[1] = a.sine;
    out[2] = b.cosine;
    out[3] = b.sine;
  }
};

template <>
struct NormalTraits<double> {
  static constexpr int kBlocks = 1;
  static __device__ __forceinline__ void draw(State state, uint64_t block, double* out) {
    const Words x = philox(state, block, kNormalStream), y = philox(state, block, kNormalStream + kLowDigits);
    const NormalPair<double> a = box_muller(x.x0, x.x1, y.x0, y.x1), b = box_muller(x.x2, x.x3, y.x2, y.x3);
    out[0] = a.cosine;
    out[1] = a.sine;
    out[2] = b.cosine;
    out[3] = b.sine;
  }
};

__device__ __forceinline__ void round_to(float x, __half& y) { y = __float2half_rn(x); }
__device__ __forceinline__ void round_to(float x, __nv_bfloat16& y) { y = __float2bfloat16_rn(x); }

template <class T>
struct RoundedNormalTraits {
  static constexpr int kBlocks = 2;
  static __device__ __forceinline__ void draw(State state, uint64_t block, T* out) {
    float draws[4];
    NormalTraits<float>::draw(state, block, draws);
    for (int i = 0; i < 4; ++i) round_to(draws[i], out[i]);
  }
};

template <>
struct NormalTraits<__half> : RoundedNormalTraits<__half> {};
template <>
struct NormalTraits<__nv_bfloat16> : RoundedNormalTraits<__nv_bfloat16> {};

// state: (seed, offset). out: n draws, 16-byte aligned.
template <class T>
__global__ void __launch_bounds__(kThreads)
    normal_kernel(const int64_t* __restrict__ state, T* __restrict__ out, int64_t n) {
  constexpr int kBlocks = NormalTraits<T>::kBlocks, kDraws = 4 * kBlocks, kPerStore = 16 / sizeof(T);
  const State start = {static_cast<uint64_t>(state[0]), static_cast<uint64_t>(state[1])};
  const int64_t items = (n + kDraws - 1) / kDraws, stride = int64_t{gridDim.x} * kThreads;
  for (int64_t item = int64_t{blockIdx.x} * kThreads + threadIdx.x; item < items; item += stride) {
    alignas(16) T draws[kDraws];
    for (int i = 0; i < kBlocks; ++i) NormalTraits<T>::draw(start, item * kBlocks + i, draws + 4 * i);
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

// In a launch of its own, since every block of the draw reads the offset.
__global__ void advance_kernel(int64_t* state, int64_t blocks) { state[1] += blocks; }

}  // namespace pygen
