// Types that a GPU's kernels load and store, and those they compute in.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "real.h"

namespace pygen {

__device__ __forceinline__ float widened(float x) { return x; }
__device__ __forceinline__ double widened(double x) { return x; }
__device__ __forceinline__ float widened(__half x) { return __half2float(x); }
__device__ __forceinline__ float widened(__nv_bfloat16 x) { return __bfloat162float(x); }

__device__ __forceinline__ void round_to(float x, float& y) { y = x; }
__device__ __forceinline__ void round_to(double x, double& y) { y = x; }
__device__ __forceinline__ void round_to(float x, __half& y) { y = __float2half_rn(x); }
__device__ __forceinline__ void round_to(float x, __nv_bfloat16& y) { y = __float2bfloat16_rn(x); }

// Calls run(T()) for the type of that name.
template <class Run>
auto with_type(Real dtype, const Run& run) {
  return dtype == Real::kFloat    ? run(float())
         : dtype == Real::kDouble ? run(double())
         : dtype == Real::kHalf   ? run(__half())
                                  : run(__nv_bfloat16());
}

}  // namespace pygen
