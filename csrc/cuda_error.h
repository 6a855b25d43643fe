// How the host code of kernels reports errors to its binding.
#pragma once
#include <cuda_runtime.h>

namespace pygen {

// The text of an error, null for none. It is not left pending: a later call of torch's would report it as its own.
inline const char* error_text(cudaError_t error) {
  if (error == cudaSuccess) return nullptr;
  cudaGetLastError();
  return cudaGetErrorString(error);
}

}  // namespace pygen
