// Stands for CUDA's header where kernels without barriers run on the CPU, thread after thread.
#pragma once
#include <torch/headeronly/util/BFloat16.h>

#define __global__ static
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(threads)

struct int4 {
  int x, y, z, w;
};

struct Index {
  unsigned x;
};
inline Index threadIdx, blockIdx, gridDim;

using __nv_bfloat16 = c10::BFloat16;
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return x; }
