// Binds the reparameterize family's kernels to the operators that pygen/ops/reparameterize.py defines.
#include <algorithm>
#include <tuple>

#include "../common.h"
#include "../isa.h"
#include "../large_pages.h"
#include "reparameterize.h"

namespace pygen {
namespace {

void check(const Tensor& state, const Tensor& mu, const Tensor& logvar) {
  check_state(state);
  const ScalarType dtype = mu.scalar_type();
  const bool real = dtype == ScalarType::Float || dtype == ScalarType::Double || dtype == ScalarType::Half ||
                    dtype == ScalarType::BFloat16;
  STD_TORCH_CHECK(real && logvar.scalar_type() == dtype,
                  "mu and logvar must both be torch.float32, torch.float64, torch.float16 or torch.bfloat16");
  STD_TORCH_CHECK(mu.dim() == 2 && logvar.dim() == 2 && logvar.size(0) == mu.size(0) && logvar.size(1) == mu.size(1),
                  "mu and logvar must be [N, L], equally large");
}

void check_gradients(const Tensor& mu, const Tensor& grad_z, const Tensor& grad_kl, ScalarType dtype) {
  STD_TORCH_CHECK(grad_z.scalar_type() == dtype && grad_kl.scalar_type() == dtype,
                  "grad_z and grad_kl must have the dtype of z");
  STD_TORCH_CHECK(grad_z.dim() == 2 && grad_z.size(0) == mu.size(0) && grad_z.size(1) == mu.size(1),
                  "grad_z must be [N, L] as mu is");
  STD_TORCH_CHECK(grad_kl.dim() == 1 && grad_kl.size(0) == mu.size(0), "grad_kl must be [N]");
}

// What half precision is computed in.
ScalarType real_type(const Tensor& mu) {
  return mu.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// Whose rows are as the kernels take them: an encoder's halves, side by side in one matrix, are not copied.
Tensor with_whole_rows(const Tensor& x) {
  return x.size(1) <= 1 || x.stride(1) == 1 ? x : torch::stable::contiguous(x);
}

template <class T>
Rows<T> rows(const Tensor& x) {
  return {data<T>(x), x.stride(0)};
}

Tensor as(const Tensor& x, ScalarType dtype) {
  return with_whole_rows(x.scalar_type() == dtype ? x : torch::stable::to(x, dtype));
}

template <class T>
const ReparameterizeKernels<T>& kernels();
template <>
const ReparameterizeKernels<float>& kernels<float>() {
  return PYGEN_BEST(kReparameterizeFloat);
}
template <>
const ReparameterizeKernels<double>& kernels<double>() {
  return PYGEN_BEST(kReparameterizeDouble);
}

// Calls run(state, begin, end) for ranges of the rows of mu, from many threads.
template <class Run>
void over_rows(const Tensor& state, const Tensor& mu, const Run& run) {
  constexpr int64_t kGrain = 16384;  // elements a thread is woken for: some 20 us of work
  const int64_t* words = data<int64_t>(state);
  const State start = {static_cast<uint64_t>(words[0]), static_cast<uint64_t>(words[1])};
  const int64_t grain = std::max<int64_t>(1, kGrain / mu.size(1));
  torch::stable::parallel_for(0, mu.size(0), grain, [&](int64_t begin, int64_t end) { run(start, begin, end); });
}

template <class T>
void forward(const Tensor& state, const Tensor& mu, const Tensor& logvar, const Tensor& z, const Tensor& kl) {
  const Reparameterization<T> arguments = {rows<T>(mu), rows<T>(logvar), mu.size(1), data<T>(z), data<T>(kl)};
  over_rows(state, mu,
            [&](State start, int64_t begin, int64_t end) { kernels<T>().forward(start, arguments, begin, end); });
}

std::tuple<Tensor, Tensor, Tensor> forward_cpu(const Tensor& state, const Tensor& mu_in, const Tensor& logvar_in) {
  check(state, mu_in, logvar_in);
  const ScalarType dtype = real_type(mu_in);
  const Tensor mu = as(mu_in, dtype), logvar = as(logvar_in, dtype);
  Tensor z = torch::stable::new_empty(mu, {mu.size(0), mu.size(1)}), kl = torch::stable::new_empty(mu, {mu.size(0)});
  prefer_large_pages(z);
  if (z.numel() == 0)
    torch::stable::zero_(kl);
  else
    (dtype == ScalarType::Float ? forward<float> : forward<double>)(state, mu, logvar, z, kl);
  return {z, kl, torch::stable::clone(state)};
}

template <class T>
void backward(const Tensor& state, const Tensor& mu, const Tensor& logvar, const Tensor& grad_z, const Tensor& grad_kl,
              const Tensor& grad_mu, const Tensor& grad_logvar) {
  const ReparameterizationGradient<T> arguments = {rows<T>(mu),         rows<T>(logvar),  mu.size(1),
                                                   data<T>(grad_z),     data<T>(grad_kl), data<T>(grad_mu),
                                                   data<T>(grad_logvar)};
  over_rows(state, mu,
            [&](State start, int64_t begin, int64_t end) { kernels<T>().backward(start, arguments, begin, end); });
}

std::tuple<Tensor, Tensor> backward_cpu(const Tensor& state, const Tensor& mu_in, const Tensor& logvar_in,
                                        const Tensor& grad_z_in, const Tensor& grad_kl_in) {
  check(state, mu_in, logvar_in);
  const ScalarType dtype = real_type(mu_in);
  check_gradients(mu_in, grad_z_in, grad_kl_in, dtype);
  const Tensor mu = as(mu_in, dtype), logvar = as(logvar_in, dtype);
  const Tensor grad_z = torch::stable::contiguous(grad_z_in), grad_kl = torch::stable::contiguous(grad_kl_in);
  const Tensor grad_mu = torch::stable::empty_like(grad_z), grad_logvar = torch::stable::empty_like(grad_z);
  for (const Tensor* gradient : {&grad_mu, &grad_logvar}) prefer_large_pages(*gradient);
  if (grad_z.numel() > 0)
    (dtype == ScalarType::Float ? backward<float> : backward<double>)(state, mu, logvar, grad_z, grad_kl, grad_mu,
                                                                      grad_logvar);
  const ScalarType stored = mu_in.scalar_type();
  if (stored == dtype) return {grad_mu, grad_logvar};
  return {torch::stable::to(grad_mu, stored), torch::stable::to(grad_logvar, stored)};
}

#ifdef PYGEN_WITH_CUDA
std::tuple<Tensor, Tensor, Tensor> forward_cuda(const Tensor& state, const Tensor& mu_in, const Tensor& logvar_in) {
  check(state, mu_in, logvar_in);
  check_devices(state, {&mu_in, &logvar_in});
  const torch::stable::accelerator::DeviceGuard guard(state.get_device_index());
  const Tensor mu = with_whole_rows(mu_in), logvar = with_whole_rows(logvar_in);
  Tensor z = torch::stable::new_empty(mu, {mu.size(0), mu.size(1)}, real_type(mu)),
         kl = torch::stable::new_empty(mu, {mu.size(0)}, real_type(mu));
  const char* error = launch_reparameterize(data<int64_t>(state), mu.data_ptr(), mu.stride(0), logvar.data_ptr(),
                                            logvar.stride(0), mu.size(0), mu.size(1), real_of(mu.scalar_type()),
                                            z.data_ptr(), kl.data_ptr(), current_stream(state));
  STD_TORCH_CHECK(error == nullptr, "reparameterize_forward: ", error);
  return {z, kl, torch::stable::clone(state)};
}

std::tuple<Tensor, Tensor> backward_cuda(const Tensor& state, const Tensor& mu_in, const Tensor& logvar_in,
                                         const Tensor& grad_z_in, const Tensor& grad_kl_in) {
  check(state, mu_in, logvar_in);
  check_gradients(mu_in, grad_z_in, grad_kl_in, real_type(mu_in));
  check_devices(state, {&mu_in, &logvar_in, &grad_z_in, &grad_kl_in});
  const torch::stable::accelerator::DeviceGuard guard(state.get_device_index());
  const Tensor mu = with_whole_rows(mu_in), logvar = with_whole_rows(logvar_in);
  const Tensor grad_z = torch::stable::contiguous(grad_z_in), grad_kl = torch::stable::contiguous(grad_kl_in);
  Tensor grad_mu = torch::stable::new_empty(mu, {mu.size(0), mu.size(1)}),
         grad_logvar = torch::stable::new_empty(mu, {mu.size(0), mu.size(1)});
  const char* error = launch_reparameterize_backward(data<int64_t>(state), mu.data_ptr(), mu.stride(0),
                                                     logvar.data_ptr(), logvar.stride(0), mu.size(0), mu.size(1),
                                                     real_of(mu.scalar_type()), grad_z.data_ptr(), grad_kl.data_ptr(),
                                                     grad_mu.data_ptr(), grad_logvar.data_ptr(), current_stream(state));
  STD_TORCH_CHECK(error == nullptr, "reparameterize_backward: ", error);
  return {grad_mu, grad_logvar};
}
#endif

}  // namespace
}  // namespace pygen

STABLE_TORCH_LIBRARY_IMPL(pygen, CPU, m) {
  m.impl("reparameterize_forward", TORCH_BOX(&pygen::forward_cpu));
  m.impl("reparameterize_backward", TORCH_BOX(&pygen::backward_cpu));
}
#ifdef PYGEN_WITH_CUDA
STABLE_TORCH_LIBRARY_IMPL(pygen, CUDA, m) {
  m.impl("reparameterize_forward", TORCH_BOX(&pygen::forward_cuda));
  m.impl("reparameterize_backward", TORCH_BOX(&pygen::backward_cuda));
}
#endif
