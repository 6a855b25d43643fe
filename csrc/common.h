// What every binding needs: tensors of the stable ABI, the current stream, the build's facts.
#pragma once
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <initializer_list>

#include "real.h"

// Lives in libtorch_cuda.so alone; weak, so that one binary also loads beside a CPU-only torch.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device, void** stream);

namespace pygen {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <class T>
T* data(const Tensor& tensor) {
  return static_cast<T*>(tensor.data_ptr());
}

// One of the four that kernels have.
inline Real real_of(ScalarType dtype) {
  return dtype == ScalarType::Float    ? Real::kFloat
         : dtype == ScalarType::Double ? Real::kDouble
         : dtype == ScalarType::Half   ? Real::kHalf
                                       : Real::kBFloat16;
}

inline void check_state(const Tensor& state) {
  const bool fits = state.scalar_type() == ScalarType::Long && state.dim() == 1 && state.size(0) == 2;
  STD_TORCH_CHECK(
      fits && state.is_contiguous(),
      "state must be a contiguous int64 tensor of shape [2], (seed, offset), as pygen.random.new_state makes it");
}

inline void check_devices(const Tensor& x, std::initializer_list<const Tensor*> others) {
  for (const Tensor* other : others)
    STD_TORCH_CHECK(other->is_cuda() && other->get_device_index() == x.get_device_index(),
                    "all tensors must be on one device");
}

inline void* current_stream(const Tensor& x) {
  STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream != nullptr, "this torch was built without CUDA");
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
  return stream;
}

}  // namespace pygen
