#include <cuda_runtime.h>

#include "kernel.cuh"

namespace pygen {
namespace {

template <class T>
cudaError_t launch(int64_t* state, void* out, int64_t n, cudaStream_t stream) {
  int device = 0, multiprocessors = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  if (error != cudaSuccess) return error;
  const int64_t draws = 4 * NormalTraits<T>::kBlocks * int64_t{kThreads};
  const int64_t needed = (n + draws - 1) / draws, resident = int64_t{multiprocessors} * kBlocksPerMultiprocessor;
  const unsigned grid = static_cast<unsigned>(needed < resident ? needed : resident);
  normal_kernel<<<grid, kThreads, 0, stream>>>(state, static_cast<T*>(out), n);
  error = cudaGetLastError();
  if (error != cudaSuccess) return error;
  advance_kernel<<<1, 1, 0, stream>>>(state, (n + 3) / 4);
  return cudaGetLastError();
}

cudaError_t launch(int64_t* state, void* out, int64_t n, Real dtype, cudaStream_t stream) {
  switch (dtype) {
    case Real::kFloat:
      return launch<float>(state, out, n, stream);
    case Real::kDouble:
      return launch<double>(state, out, n, stream);
    case Real::kHalf:
      return launch<__half>(state, out, n, stream);
    case Real::kBFloat16:
      return launch<__nv_bfloat16>(state, out, n, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace

const char* launch_normal(int64_t* state, void* out, int64_t n, Real dtype, void* stream) {
  if (n == 0) return nullptr;
  const cudaError_t error = launch(state, out, n, dtype, static_cast<cudaStream_t>(stream));
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace pygen
