// How kernels read columns of a row for sums in float64.
#pragma once

namespace pygen {

// Four columns of a row, from where `count` are left.
template <bool kWhole>
__device__ __forceinline__ void load_columns(const float* from, int count, double (&to)[4]) {
  if (kWhole) {
    const float4 x = __ldg(reinterpret_cast<const float4*>(from));
    to[0] = x.x, to[1] = x.y, to[2] = x.z, to[3] = x.w;
  } else {
    for (int i = 0; i < 4; ++i) to[i] = i < count ? __ldg(from + i) : 0.0f;
  }
}
template <bool kWhole>
__device__ __forceinline__ void load_columns(const double* from, int count, double (&to)[4]) {
  if (kWhole) {
    for (int i = 0; i < 2; ++i) {
      const double2 x = __ldg(reinterpret_cast<const double2*>(from) + i);
      to[2 * i] = x.x, to[2 * i + 1] = x.y;
    }
  } else {
    for (int i = 0; i < 4; ++i) to[i] = i < count ? __ldg(from + i) : 0.0;
  }
}

}  // namespace pygen
