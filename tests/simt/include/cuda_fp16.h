// Stands for CUDA's header of this name.
#pragma once
#include <torch/headeronly/util/Half.h>

#include "cuda_runtime.h"

using __half = c10::Half;
struct alignas(4) __half2 {
  __half x, y;
};
inline __half __float2half_rn(float x) { return x; }
inline float __half2float(__half x) { return x; }
inline __half2 __floats2half2_rn(float x, float y) { return {x, y}; }
inline float2 __half22float2(__half2 v) { return {v.x, v.y}; }
