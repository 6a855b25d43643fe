// A block of four draws by one thread of a GPU, in any type.
#pragma once
#include "../real.cuh"
#include "box_muller.h"
#include "gaussian.h"

namespace pygen {

// Box-Muller by the GPU's own approximations, absolute error 3e-6; a radius below 1e-3 is less exact.
__device__ __forceinline__ NormalPair<float> fast_box_muller(uint32_t x0, uint32_t x1) {
  const float u = fmaf(static_cast<float>(x0), 0x1p-32f, 0x1p-33f);
  const float square = fmaxf(-1.38629436f * __log2f(u), 1e-30f), r = square * rsqrtf(square);
  NormalPair<float> v;
  __sincosf(static_cast<float>(static_cast<int32_t>(x1)) * 1.46291808e-9f, &v.sine, &v.cosine);
  return {r * v.cosine, r * v.sine};
}

template <bool kFast = false>
__device__ __forceinline__ void draw(State state, uint64_t block, float* out) {
  const Words x = philox(state, block, kNormalStream);
  const NormalPair<float> a = kFast ? fast_box_muller(x.x0, x.x1) : box_muller(x.x0, x.x1),
                          b = kFast ? fast_box_muller(x.x2, x.x3) : box_muller(x.x2, x.x3);
  out[0] = a.cosine;
  out[1] = a.sine;
  out[2] = b.cosine;
  out[3] = b.sine;
}

// The same, fast or not.
template <bool kFast = false>
__device__ __forceinline__ void draw(State state, uint64_t block, double* out) {
  const Words x = philox(state, block, kNormalStream), y = philox(state, block, kNormalStream + kLowDigits);
  const NormalPair<double> a = box_muller(x.x0, x.x1, y.x0, y.x1), b = box_muller(x.x2, x.x3, y.x2, y.x3);
  out[0] = a.cosine;
  out[1] = a.sine;
  out[2] = b.cosine;
  out[3] = b.sine;
}

template <bool kFast = false, class T>
__device__ __forceinline__ void draw(State state, uint64_t block, T* out) {
  float draws[4];
  draw<kFast>(state, block, draws);
  for (int i = 0; i < 4; ++i) round_to(draws[i], out[i]);
}

}  // namespace pygen
