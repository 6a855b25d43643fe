// Stands for CUDA's header of this name where kernels run on the CPU: the part of the language and of the runtime's
// interface that kernels here use.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <tuple>

#include "simt.h"

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __shared__ _Pragma("GCC error \"shared memory: shared_memory<T>() or static_shared<T>() of csrc/ptx.h\"")

#define SIMT_VECTOR(name, type, alignment)                                    \
  struct alignas(alignment / 2) name##2 { type x, y; };                       \
  struct name##3 { type x, y, z; };                                           \
  struct alignas(alignment) name##4 { type x, y, z, w; };                     \
  inline name##2 make_##name##2(type x, type y) { return {x, y}; }            \
  inline name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; } \
  inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
SIMT_VECTOR(char, signed char, 4)
SIMT_VECTOR(uchar, unsigned char, 4)
SIMT_VECTOR(short, short, 8)
SIMT_VECTOR(ushort, unsigned short, 8)
SIMT_VECTOR(int, int, 16)
SIMT_VECTOR(uint, unsigned, 16)
SIMT_VECTOR(float, float, 16)
#undef SIMT_VECTOR
struct alignas(16) double2 {
  double x, y;
};
struct alignas(16) longlong2 {
  long long x, y;
};
inline double2 make_double2(double x, double y) { return {x, y}; }
inline longlong2 make_longlong2(long long x, long long y) { return {x, y}; }

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

inline const simt::Index &threadIdx = simt::coordinates.thread, &blockIdx = simt::coordinates.block,
                         &blockDim = simt::coordinates.block_dim, &gridDim = simt::coordinates.grid_dim;
constexpr int warpSize = 32;

// ---- Barriers, votes, shuffles -------------------------------------------------------------------------------------

#define SIMT_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()
inline void __syncthreads(SIMT_SITE) { simt::block_barrier({"__syncthreads", file, line}); }
inline void __syncwarp(unsigned mask = ~0u, SIMT_SITE) { simt::warp_barrier(mask, {"__syncwarp", file, line}); }
inline void __threadfence() { simt::fence(); }
inline void __threadfence_block() { simt::fence(); }

inline unsigned __ballot_sync(unsigned mask, int vote, SIMT_SITE) {
  return simt::ballot(mask, vote, {"__ballot_sync", file, line});
}
inline int __any_sync(unsigned mask, int vote, SIMT_SITE) {
  return simt::ballot(mask, vote, {"__any_sync", file, line}) != 0;
}
inline int __all_sync(unsigned mask, int vote, SIMT_SITE) {
  return simt::ballot(mask, !vote, {"__all_sync", file, line}) == 0;
}

namespace simt {

template <class T>
T shuffle_from(unsigned mask, T value, unsigned source, Site site) {
  static_assert(sizeof(T) <= sizeof(uint64_t), "a shuffle moves 8 bytes at most");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  bits = shuffle(mask, bits, source, site);
  memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace simt

// Lanes outside the sub-warp of `width` lanes are not read: a lane then gets its own value.
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, SIMT_SITE) {
  const int lane = simt::coordinates.lane, first = lane & ~(width - 1);
  return simt::shuffle_from(mask, value, first + (source & (width - 1)), {"__shfl_sync", file, line});
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, SIMT_SITE) {
  const int lane = simt::coordinates.lane, last = lane | (width - 1), source = lane ^ bits;
  return simt::shuffle_from(mask, value, source <= last ? source : lane, {"__shfl_xor_sync", file, line});
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_SITE) {
  const int lane = simt::coordinates.lane, last = lane | (width - 1), source = lane + static_cast<int>(delta);
  return simt::shuffle_from(mask, value, source <= last ? source : lane, {"__shfl_down_sync", file, line});
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_SITE) {
  const int lane = simt::coordinates.lane, first = lane & ~(width - 1), source = lane - static_cast<int>(delta);
  return simt::shuffle_from(mask, value, source >= first ? source : lane, {"__shfl_up_sync", file, line});
}

// Which lanes have the same value.
template <class T>
unsigned __match_any_sync(unsigned mask, T value, SIMT_SITE) {
  unsigned alike = 0;
  for (int lane = 0; lane < 32; ++lane)
    if (mask >> lane & 1 && simt::shuffle_from(mask, value, lane, {"__match_any_sync", file, line}) == value)
      alike |= 1u << lane;
  return alike;
}

// ---- Atomics: they order nothing, as on a GPU ----------------------------------------------------------------------

namespace simt {

template <class T, class Update>
T update(T* at, Update next) {
  T old, wanted;
  __atomic_load(at, &old, __ATOMIC_RELAXED);
  do wanted = next(old);
  while (!__atomic_compare_exchange(at, &old, &wanted, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return old;
}

}  // namespace simt

template <class T>
T atomicAdd(T* at, T value) {
  return simt::update(at, [=](T old) { return static_cast<T>(old + value); });
}
template <class T>
T atomicMax(T* at, T value) {
  return simt::update(at, [=](T old) { return old < value ? value : old; });
}
template <class T>
T atomicMin(T* at, T value) {
  return simt::update(at, [=](T old) { return value < old ? value : old; });
}
template <class T>
T atomicExch(T* at, T value) {
  return simt::update(at, [=](T) { return value; });
}
template <class T>
T atomicCAS(T* at, T expected, T value) {
  return simt::update(at, [=](T old) { return old == expected ? value : old; });
}

// ---- Arithmetic ----------------------------------------------------------------------------------------------------

using std::isfinite;
using std::max;
using std::min;

template <class T>
T __ldg(const T* at) {
  return *at;
}
template <class T>
T __ldcs(const T* at) {
  return *at;
}
template <class T>
void __stcs(T* at, T value) {
  *at = value;
}

namespace simt {

template <class To, class From>
To bits_of(From from) {
  static_assert(sizeof(To) == sizeof(From), "the same bits");
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

}  // namespace simt

inline unsigned __float_as_uint(float x) { return simt::bits_of<unsigned>(x); }
inline int __float_as_int(float x) { return simt::bits_of<int>(x); }
inline float __uint_as_float(unsigned x) { return simt::bits_of<float>(x); }
inline float __int_as_float(int x) { return simt::bits_of<float>(x); }
inline long long __double_as_longlong(double x) { return simt::bits_of<long long>(x); }
inline double __longlong_as_double(long long x) { return simt::bits_of<double>(x); }

inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(uint64_t{a} * b >> 32); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }

inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }

// The fast ones are less exact on a GPU: tests of them allow for it.
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline void __sincosf(float x, float* sine, float* cosine) {
  *sine = sinf(x);
  *cosine = cosf(x);
}
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }

// ---- The runtime's interface ---------------------------------------------------------------------------------------

using cudaStream_t = struct CUstream_st*;
enum cudaError_t { cudaSuccess, cudaErrorInvalidValue };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount, cudaDevAttrMaxSharedMemoryPerBlockOptin };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize, cudaFuncAttributePreferredSharedMemoryCarveout };
struct cudaLaunchAttribute;
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};

inline const char* cudaGetErrorString(cudaError_t error) { return error == cudaSuccess ? "no error" : "invalid value"; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaPeekAtLastError() { return cudaSuccess; }
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMultiProcessorCount ? simt::multiprocessors() : 227 << 10;
  return cudaSuccess;
}
template <class T>
cudaError_t cudaFuncSetAttribute(T* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize)
    simt::allow_dynamic_shared(reinterpret_cast<const void*>(kernel), value);
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* at, int value, size_t bytes, cudaStream_t = nullptr) {
  memset(at, value, bytes);
  return cudaSuccess;
}

// A launch that a GPU refuses ends the program, saying why.
template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  struct Call {
    void (*kernel)(Parameters...);
    std::tuple<Parameters...> arguments;
  };
  const Call call = {kernel, {static_cast<Arguments&&>(arguments)...}};
  const auto thread = [](const void* data) {
    const Call& c = *static_cast<const Call*>(data);
    std::apply(c.kernel, c.arguments);
  };
  const dim3 &grid = config->gridDim, &block = config->blockDim;
  simt::run({{grid.x, grid.y, grid.z},
             {block.x, block.y, block.z},
             config->dynamicSmemBytes,
             reinterpret_cast<const void*>(kernel),
             thread,
             &call});
  return cudaSuccess;
}
