// The kernels of the reparameterize family as their bindings see them: raw pointers, sizes, a stream.
#pragma once
#include "../gaussian/gaussian.h"

namespace pygen {

// A matrix [N, L] whose rows lie `stride` elements apart.
template <class T>
struct Rows {
  const T* data;
  int64_t stride;
};

// T is the type of mu and logvar, Out the one it is computed in.
template <class T, class Out = T>
struct Reparameterization {
  Rows<T> mu, logvar;
  int64_t columns;
  Out* z;   // [N, L]
  Out* kl;  // [N]
};

template <class T, class Out = T>
struct ReparameterizationGradient {
  Rows<T> mu, logvar;
  int64_t columns;
  const Out* grad_z;         // [N, L]
  const Out* grad_kl;        // [N]
  T *grad_mu, *grad_logvar;  // [N, L]
};

// Rows [begin, end). `state` is that of the first row's first draw, whatever `begin` is.
template <class T>
using Reparameterize = void (*)(State state, const Reparameterization<T>& arguments, int64_t begin, int64_t end);
template <class T>
using ReparameterizeBackward = void (*)(State state, const ReparameterizationGradient<T>& arguments, int64_t begin,
                                        int64_t end);

template <class T>
struct ReparameterizeKernels {
  Reparameterize<T> forward;
  ReparameterizeBackward<T> backward;
};

// cpu.cpp, compiled once per instruction set.
namespace baseline {
extern const ReparameterizeKernels<float> kReparameterizeFloat;
extern const ReparameterizeKernels<double> kReparameterizeDouble;
}  // namespace baseline
namespace avx2 {
extern const ReparameterizeKernels<float> kReparameterizeFloat;
extern const ReparameterizeKernels<double> kReparameterizeDouble;
}  // namespace avx2
namespace avx512 {
extern const ReparameterizeKernels<float> kReparameterizeFloat;
extern const ReparameterizeKernels<double> kReparameterizeDouble;
}  // namespace avx512

// cuda.cu, on `stream`: z and kl, or the gradients, are contiguous and 16-byte aligned. Each returns the CUDA error's
// text, or null.
const char* launch_reparameterize(const int64_t* state, const void* mu, int64_t mu_stride, const void* logvar,
                                  int64_t logvar_stride, int64_t n, int64_t columns, Real dtype, void* z, void* kl,
                                  void* stream);
const char* launch_reparameterize_backward(const int64_t* state, const void* mu, int64_t mu_stride, const void* logvar,
                                           int64_t logvar_stride, int64_t n, int64_t columns, Real dtype,
                                           const void* grad_z, const void* grad_kl, void* grad_mu, void* grad_logvar,
                                           void* stream);

}  // namespace pygen
