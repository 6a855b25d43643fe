#include "../launch.h"
#include "kernel.cuh"

namespace pygen {
namespace {

template <class T>
cudaError_t launch(void (*kernel)(const int64_t*, T*, int64_t), int64_t* state, void* out, int64_t n, void* stream) {
  int device = 0, multiprocessors = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  if (error != cudaSuccess) return error;
  const int64_t draws = 4 * kBlocksPerItem<T> * int64_t{kThreads};
  const int64_t needed = (n + draws - 1) / draws, resident = int64_t{multiprocessors} * kBlocksPerMultiprocessor;
  cudaLaunchConfig_t config = {};
  config.gridDim = static_cast<unsigned>(needed < resident ? needed : resident);
  config.blockDim = kThreads;
  config.stream = static_cast<cudaStream_t>(stream);
  error = cudaLaunchKernelEx(&config, kernel, state, static_cast<T*>(out), n);
  if (error != cudaSuccess) return error;
  config.gridDim = config.blockDim = 1;
  return cudaLaunchKernelEx(&config, advance_kernel, state, (n + 3) / 4);
}

}  // namespace

const char* launch_normal(int64_t* state, void* out, int64_t n, Real dtype, void* stream) {
  if (n == 0) return nullptr;
  switch (dtype) {
    case Real::kFloat:
      return error_text(launch(normal_kernel<float>, state, out, n, stream));
    case Real::kDouble:
      return error_text(launch(normal_kernel<double>, state, out, n, stream));
    case Real::kHalf:
      return error_text(launch(normal_kernel<__half>, state, out, n, stream));
    case Real::kBFloat16:
      return error_text(launch(normal_kernel<__nv_bfloat16>, state, out, n, stream));
  }
  return error_text(cudaErrorInvalidValue);
}

const char* launch_fast_normal(int64_t* state, void* out, int64_t n, Real dtype, void* stream) {
  if (n == 0) return nullptr;
  switch (dtype) {
    case Real::kFloat:
      return error_text(launch(fast_normal_kernel<float>, state, out, n, stream));
    case Real::kDouble:
      return error_text(launch(normal_kernel<double>, state, out, n, stream));
    case Real::kHalf:
      return error_text(launch(fast_normal_kernel<__half>, state, out, n, stream));
    case Real::kBFloat16:
      return error_text(launch(fast_normal_kernel<__nv_bfloat16>, state, out, n, stream));
  }
  return error_text(cudaErrorInvalidValue);
}

}  // namespace pygen
