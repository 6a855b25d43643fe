// csrc/reparameterize/cpu.cpp for one instruction set, PYGEN_ISA, behind C functions.
#include "csrc/reparameterize/cpu.cpp"

namespace {

template <class T>
void run(const pygen::ReparameterizeKernels<T>& kernels, const int64_t* state, const T* mu, const T* logvar, int64_t n,
         int64_t columns, T* z, T* kl, const T* grad_z, const T* grad_kl, T* grad_mu, T* grad_logvar) {
  const pygen::State start = {static_cast<uint64_t>(state[0]), static_cast<uint64_t>(state[1])};
  const pygen::Rows<T> mus = {mu, columns}, logvars = {logvar, columns};
  kernels.forward(start, {mus, logvars, columns, z, kl}, 0, n);
  kernels.backward(start, {mus, logvars, columns, grad_z, grad_kl, grad_mu, grad_logvar}, 0, n);
}

}  // namespace

extern "C" void run_float(const int64_t* state, const float* mu, const float* logvar, int64_t n, int64_t columns,
                          float* z, float* kl, const float* grad_z, const float* grad_kl, float* grad_mu,
                          float* grad_logvar) {
  run(pygen::PYGEN_ISA::kReparameterizeFloat, state, mu, logvar, n, columns, z, kl, grad_z, grad_kl, grad_mu,
      grad_logvar);
}

extern "C" void run_double(const int64_t* state, const double* mu, const double* logvar, int64_t n, int64_t columns,
                           double* z, double* kl, const double* grad_z, const double* grad_kl, double* grad_mu,
                           double* grad_logvar) {
  run(pygen::PYGEN_ISA::kReparameterizeDouble, state, mu, logvar, n, columns, z, kl, grad_z, grad_kl, grad_mu,
      grad_logvar);
}
