#include "../launch.h"
#include "kernel.cuh"

namespace pygen {
namespace {

template <class T, class Arguments>
cudaError_t launch(void (*kernel)(const int64_t* state, Arguments arguments, int64_t n), const int64_t* state,
                   const Arguments& arguments, int64_t n, void* stream) {
  // Few threads to a row where they have few items each, and a warp, which needs no barrier, as long as these are not
  // too many.
  constexpr int64_t kItems = 4, kWarpItems = 8;
  const int64_t items = arguments.columns / ItemTraits<T>::kItem;
  const unsigned threads = items <= 8 * kItems ? 8 : items <= 32 * kWarpItems ? 32 : kRowThreads;
  const unsigned rows = kRowThreads / threads;
  cudaLaunchConfig_t config = {};
  config.gridDim = static_cast<unsigned>((n + rows - 1) / rows);
  config.blockDim = dim3(threads, rows);
  config.stream = static_cast<cudaStream_t>(stream);
  return cudaLaunchKernelEx(&config, kernel, state, arguments, n);
}

template <class T>
Rows<T> rows(const void* data, int64_t stride) {
  return {static_cast<const T*>(data), stride};
}

}  // namespace

const char* launch_reparameterize(const int64_t* state, const void* mu, int64_t mu_stride, const void* logvar,
                                  int64_t logvar_stride, int64_t n, int64_t columns, Real dtype, void* z, void* kl,
                                  void* stream) {
  if (n == 0) return nullptr;
  return with_type(dtype, [&](auto type) {
    using T = decltype(type);
    using Out = typename ItemTraits<T>::Out;
    const Reparameterization<T, Out> arguments = {rows<T>(mu, mu_stride), rows<T>(logvar, logvar_stride), columns,
                                                  static_cast<Out*>(z), static_cast<Out*>(kl)};
    return error_text(launch<T>(reparameterize_kernel<T>, state, arguments, n, stream));
  });
}

const char* launch_reparameterize_backward(const int64_t* state, const void* mu, int64_t mu_stride, const void* logvar,
                                           int64_t logvar_stride, int64_t n, int64_t columns, Real dtype,
                                           const void* grad_z, const void* grad_kl, void* grad_mu, void* grad_logvar,
                                           void* stream) {
  if (n == 0) return nullptr;
  return with_type(dtype, [&](auto type) {
    using T = decltype(type);
    using Out = typename ItemTraits<T>::Out;
    const ReparameterizationGradient<T, Out> arguments = {
        rows<T>(mu, mu_stride),          rows<T>(logvar, logvar_stride),   columns,
        static_cast<const Out*>(grad_z), static_cast<const Out*>(grad_kl), static_cast<T*>(grad_mu),
        static_cast<T*>(grad_logvar)};
    return error_text(launch<T>(reparameterize_backward_kernel<T>, state, arguments, n, stream));
  });
}

}  // namespace pygen
