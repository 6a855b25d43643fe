// Binds the gaussian family's kernels to the operators that pygen/ops/gaussian.py defines.
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <type_traits>

#include "../common.h"
#include "../isa.h"
#include "../large_pages.h"
#include "gaussian.h"

namespace pygen {

const NormalKernels& normal_kernels() { return PYGEN_BEST(kNormal); }

namespace {

Tensor empty_draws(const Tensor& state, const std::vector<int64_t>& size, ScalarType dtype) {
  check_state(state);
  const bool real = dtype == ScalarType::Float || dtype == ScalarType::Double || dtype == ScalarType::Half ||
                    dtype == ScalarType::BFloat16;
  STD_TORCH_CHECK(real, "dtype must be one of torch.float32, torch.float64, torch.float16, torch.bfloat16");
  const bool countable = std::all_of(size.begin(), size.end(), [](int64_t length) { return length >= 0; });
  STD_TORCH_CHECK(countable, "size must not be negative");
  return torch::stable::new_empty(state, size, dtype);
}

// Float draws of a part of the call, rounded: no second tensor of the call's size.
template <class T>
void fill_rounded(FillFloat fill, State state, int64_t begin, int64_t end, int64_t n, T* out) {
  constexpr int64_t kBlocks = 1024;
  float draws[4 * kBlocks];
  for (int64_t first = begin; first < end; first += kBlocks) {
    const int64_t count = std::min(4 * std::min(first + kBlocks, end), n) - 4 * first;
    const State shifted = {state.seed, state.offset + static_cast<uint64_t>(first)};
    fill(shifted, 0, (count + 3) / 4, count, draws);
    for (int64_t i = 0; i < count; ++i) out[4 * first + i] = T(draws[i]);
  }
}

Tensor normal_cpu(const Tensor& state, const std::vector<int64_t>& size, ScalarType dtype, bool) {
  constexpr int64_t kGrain = 4096;  // blocks a thread is woken for: some 20 us of work
  Tensor out = empty_draws(state, size, dtype);
  prefer_large_pages(out);
  const int64_t n = out.numel(), blocks = (n + 3) / 4;
  int64_t* words = static_cast<int64_t*>(state.data_ptr());
  const State start = {static_cast<uint64_t>(words[0]), static_cast<uint64_t>(words[1])};
  const NormalKernels& kernels = normal_kernels();
  void* data = out.data_ptr();
  torch::stable::parallel_for(0, blocks, kGrain, [&](int64_t begin, int64_t end) {
    switch (dtype) {
      case ScalarType::Float:
        kernels.fill_float(start, begin, end, n, static_cast<float*>(data));
        break;
      case ScalarType::Double:
        kernels.fill_double(start, begin, end, n, static_cast<double*>(data));
        break;
      case ScalarType::Half:
        fill_rounded(kernels.fill_float, start, begin, end, n, static_cast<c10::Half*>(data));
        break;
      default:
        fill_rounded(kernels.fill_float, start, begin, end, n, static_cast<c10::BFloat16*>(data));
    }
  });
  words[1] = static_cast<int64_t>(start.offset + static_cast<uint64_t>(blocks));
  return out;
}

void draw_uniform(State state, int64_t block, float (&out)[4]) {
  const Words x = philox(state, block, kUniformStream);
  const uint32_t words[] = {x.x0, x.x1, x.x2, x.x3};
  for (int lane = 0; lane < 4; ++lane) out[lane] = uniform(words[lane]);
}

void draw_uniform(State state, int64_t block, double (&out)[4]) {
  const Words x = philox(state, block, kUniformStream), y = philox(state, block, kUniformStream + kLowDigits);
  const uint32_t high[] = {x.x0, x.x1, x.x2, x.x3}, low[] = {y.x0, y.x1, y.x2, y.x3};
  for (int lane = 0; lane < 4; ++lane) out[lane] = uniform(high[lane], low[lane]);
}

Tensor uniform_cpu(const Tensor& state, const std::vector<int64_t>& size, ScalarType dtype) {
  constexpr int64_t kGrain = 1024;  // blocks a thread is woken for: some 20 us of work
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double,
                  "dtype must be one of torch.float32, torch.float64");
  Tensor out = empty_draws(state, size, dtype);
  const int64_t n = out.numel(), blocks = (n + 3) / 4;
  int64_t* words = data<int64_t>(state);
  const State start = {static_cast<uint64_t>(words[0]), static_cast<uint64_t>(words[1])};
  const auto fill = [&](auto* to) {
    torch::stable::parallel_for(0, blocks, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) {
        std::remove_reference_t<decltype(*to)> draws[4];
        draw_uniform(start, block, draws);
        std::copy_n(draws, std::min<int64_t>(4, n - 4 * block), to + 4 * block);
      }
    });
  };
  dtype == ScalarType::Float ? fill(data<float>(out)) : fill(data<double>(out));
  words[1] = static_cast<int64_t>(start.offset + static_cast<uint64_t>(blocks));
  return out;
}

#ifdef PYGEN_WITH_CUDA
Tensor normal_cuda(const Tensor& state, const std::vector<int64_t>& size, ScalarType dtype, bool fast) {
  const torch::stable::accelerator::DeviceGuard guard(state.get_device_index());
  Tensor out = empty_draws(state, size, dtype);
  const char* error = (fast ? launch_fast_normal : launch_normal)(
      static_cast<int64_t*>(state.data_ptr()), out.data_ptr(), out.numel(), real_of(dtype), current_stream(state));
  STD_TORCH_CHECK(error == nullptr, "normal: ", error);
  return out;
}
#endif

}  // namespace
}  // namespace pygen

STABLE_TORCH_LIBRARY_IMPL(pygen, CPU, m) {
  m.impl("normal", TORCH_BOX(&pygen::normal_cpu));
  m.impl("uniform", TORCH_BOX(&pygen::uniform_cpu));
}
#ifdef PYGEN_WITH_CUDA
STABLE_TORCH_LIBRARY_IMPL(pygen, CUDA, m) { m.impl("normal", TORCH_BOX(&pygen::normal_cuda)); }
#endif
