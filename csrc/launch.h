// How the host code of kernels launches them and reports errors to its binding.
#pragma once
#include <cuda_runtime.h>

#include "portable.h"

namespace pygen {

// The text of an error, null for none. It is not left pending: a later call of torch's would report it as its own.
inline const char* error_text(cudaError_t error) {
  if (error == cudaSuccess) return nullptr;
  cudaGetLastError();
  return cudaGetErrorString(error);
}

// Rounded up.
inline int64_t divided(int64_t n, int64_t by) { return (n + by - 1) / by; }

inline unsigned blocks_of(int64_t n, int64_t threads) { return static_cast<unsigned>(divided(n, threads)); }

// Takes arrays from a workspace, one after the other; from null, to see how much they are.
struct Taker {
  uintptr_t base;
  int64_t used = 0;

  template <class T>
  T* take(int64_t n) {
    T* taken = reinterpret_cast<T*>(base + static_cast<uintptr_t>(used));
    used += divided(n * static_cast<int64_t>(sizeof(T)), 16) * 16;
    return taken;
  }
};

// Launches on one stream until one fails. A grid of no blocks is nothing to do.
struct Launcher {
  cudaStream_t stream;
  cudaError_t error = cudaSuccess;

  template <class... Parameters, class... Arguments>
  void operator()(void (*kernel)(Parameters...), dim3 grid, dim3 threads, size_t shared, Arguments... arguments) {
    constexpr size_t kAlways = 48 << 10;  // of dynamic shared memory; more must be asked for
    if (error == cudaSuccess && shared > kAlways)
      error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared));
    if (error != cudaSuccess || grid.x == 0) return;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = threads;
    config.dynamicSmemBytes = shared;
    config.stream = stream;
    error = cudaLaunchKernelEx(&config, kernel, arguments...);
  }

  void clear(void* at, int64_t bytes) {
    if (error == cudaSuccess) error = cudaMemsetAsync(at, 0, static_cast<size_t>(bytes), stream);
  }
};

}  // namespace pygen
