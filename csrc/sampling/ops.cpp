// Binds the sampling family's kernels to the operators that pygen/ops/sampling.py defines.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "../common.h"
#include "../isa.h"
#include "../large_pages.h"
#include "pick.h"
#include "sampling.h"

namespace pygen {
namespace {

std::string shape(const Tensor& tensor) {
  std::string text = "[";
  for (int64_t i = 0; i < tensor.dim(); ++i) text += (i ? ", " : "") + std::to_string(tensor.size(i));
  return text + "]";
}

// Python sees ValueError, as from the operator's plain-PyTorch twin.
void expect(bool holds, const std::string& text) {
  if (!holds) throw std::invalid_argument(text);
}

void check(const Tensor& state, const Tensor& index, const Tensor& means, const Tensor& scales) {
  check_state(state);
  const ScalarType dtype = means.scalar_type();
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double,
                  "dtype must be one of torch.float32, torch.float64");
  expect(index.dim() == 1 && index.scalar_type() == ScalarType::Long,
         "index must be int64 [N], got another dtype or shape " + shape(index) + ".");
  expect(means.dim() == 2, "means must be [K, D], got " + shape(means) + ".");
  const int64_t components = means.size(0), columns = means.size(1);
  const auto is = [&](int64_t dim, int64_t size) { return scales.size(dim) == size || scales.size(dim) == 1; };
  const bool deviations = scales.dim() == 2 && is(0, components) && is(1, columns);
  const bool factors = scales.dim() == 3 && is(0, components) && scales.size(1) == columns && scales.size(2) == columns;
  const std::string k = std::to_string(components), d = std::to_string(columns);
  expect(deviations || factors, "scales must be standard deviations [" + k + " or 1, " + d +
                                    " or 1] or Cholesky factors [" + k + " or 1, " + d + ", " + d + "] for means [" +
                                    k + ", " + d + "], got " + shape(scales) + ".");
  expect(scales.scalar_type() == dtype, "scales must have the dtype of means.");
}

void check_index(const int64_t* index, int64_t n, int64_t components) {
  if (n == 0) return;
  const auto [least, most] = std::minmax_element(index, index + n);
  if (*least < 0 || *most >= components)
    throw std::out_of_range("index must lie in [0, " + std::to_string(components) + "), got " + std::to_string(*least) +
                            " to " + std::to_string(*most) + ".");
}

template <class T>
struct Kernels;
template <>
struct Kernels<float> {
  static const SamplingKernels<float>& sampling() { return PYGEN_BEST(kSamplingFloat); }
  static const FactorKernels<float>& factor() { return PYGEN_BEST(kFactorFloat); }
};
template <>
struct Kernels<double> {
  static const SamplingKernels<double>& sampling() { return PYGEN_BEST(kSamplingDouble); }
  static const FactorKernels<double>& factor() { return PYGEN_BEST(kFactorDouble); }
};

constexpr int64_t kGrain = 16384;  // elements a thread is woken for: some 20 us of work

template <class T>
void sample_diagonal(State start, const Tensor& index, const Tensor& means, const Tensor& scales, const Tensor& out) {
  const int64_t columns = means.size(1);
  const DiagonalGaussians<T> gaussians = {
      data<int64_t>(index), data<T>(means), data<T>(scales), columns, scales.size(0) == 1 ? 0 : scales.size(1),
      scales.size(1) == 1,  data<T>(out)};
  torch::stable::parallel_for(0, out.size(0), std::max<int64_t>(1, kGrain / columns), [&](int64_t begin, int64_t end) {
    Kernels<T>::sampling().diagonal(start, gaussians, begin, end);
  });
}

// The rows of a component that are multiplied together.
struct Block {
  int64_t component;
  const int64_t* rows;
  int64_t count;
};

// Noise everywhere, then each component replaces that of its rows.
template <class T>
void sample_factor(State start, const Tensor& index, const Tensor& means, const Tensor& scales, const Tensor& out) {
  constexpr int64_t kTiles = 8;  // of a block: with 784 columns they take a third of a second-level cache of 1 MB
  const int64_t n = out.size(0), size = means.size(1), components = means.size(0);
  torch::stable::parallel_for(0, n, std::max<int64_t>(1, kGrain / size), [&](int64_t begin, int64_t end) {
    Kernels<T>::sampling().fill_rows(start, size, begin, end, data<T>(out));
  });
  const int64_t* of = data<int64_t>(index);
  std::vector<int64_t> ends(components + 1), rows(n);
  for (int64_t i = 0; i < n; ++i) ++ends[of[i] + 1];
  std::partial_sum(ends.begin(), ends.end(), ends.begin());
  for (int64_t i = 0; i < n; ++i) rows[ends[of[i]]++] = i;
  const FactorKernels<T>& kernels = Kernels<T>::factor();
  const int64_t most = kTiles * kernels.rows;
  std::vector<Block> blocks;
  for (int64_t k = 0, begin = 0; k < components; begin = ends[k++])
    for (; begin < ends[k]; begin += most) blocks.push_back({k, rows.data() + begin, std::min(most, ends[k] - begin)});
  const int64_t panels = (size + kernels.columns - 1) / kernels.columns;
  torch::stable::parallel_for(0, static_cast<int64_t>(blocks.size()), std::max<int64_t>(1, kGrain / (most * size)),
                              [&](int64_t begin, int64_t end) {
                                std::vector<T> packed(panels * kernels.columns * size), scratch(most * size);
                                const T* factor = nullptr;
                                for (int64_t i = begin; i < end; ++i) {
                                  const Block& block = blocks[i];
                                  const T* own =
                                      data<T>(scales) + (scales.size(0) == 1 ? 0 : block.component * size * size);
                                  if (own != factor) kernels.pack(factor = own, size, packed.data());
                                  kernels.multiply(packed.data(), size, data<T>(means) + block.component * size,
                                                   block.rows, block.count, scratch.data(), data<T>(out));
                                }
                              });
}

void check_weights(const Tensor& weights, int64_t n) {
  const ScalarType dtype = weights.scalar_type();
  expect(weights.dim() == 1 && weights.size(0) > 0 && (dtype == ScalarType::Float || dtype == ScalarType::Double),
         "weights must be float32 or float64 [K], got another dtype or shape " + shape(weights) + ".");
  STD_TORCH_CHECK(n >= 0, "size must not be negative, got ", n);
}

Tensor pick_cpu(const Tensor& state, const Tensor& weights_in, int64_t n) {
  constexpr int64_t kPickGrain = 1024;  // blocks of four draws a thread is woken for: some 30 us of work
  check_state(state);
  check_weights(weights_in, n);
  const Tensor weights = torch::stable::contiguous(torch::stable::to(weights_in, ScalarType::Double));
  const double* weight = data<double>(weights);
  const int64_t components = weights.size(0);
  std::vector<double> totals(weight, weight + components);
  const bool negative = std::any_of(totals.begin(), totals.end(), [](double w) { return !(w >= 0); });
  std::partial_sum(totals.begin(), totals.end(), totals.begin());
  expect(!negative && std::isfinite(totals.back()) && totals.back() > 0,
         "weights must be finite, not negative, and not all 0.");
  Tensor out = torch::stable::new_empty(state, {n});
  int64_t *words = data<int64_t>(state), *to = data<int64_t>(out), blocks = (n + 3) / 4;
  const State start = {static_cast<uint64_t>(words[0]), static_cast<uint64_t>(words[1])};
  torch::stable::parallel_for(0, blocks, kPickGrain, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      int64_t picks[4];
      pick(start, static_cast<uint64_t>(block), totals.data(), components, picks);
      std::copy_n(picks, std::min<int64_t>(4, n - 4 * block), to + 4 * block);
    }
  });
  words[1] = static_cast<int64_t>(start.offset + static_cast<uint64_t>(blocks));
  return out;
}

Tensor sample_gaussians_cpu(const Tensor& state, const Tensor& index_in, const Tensor& means_in,
                            const Tensor& scales_in, bool) {
  check(state, index_in, means_in, scales_in);
  const Tensor index = torch::stable::contiguous(index_in), means = torch::stable::contiguous(means_in),
               scales = torch::stable::contiguous(scales_in);
  const int64_t n = index.size(0), columns = means.size(1);
  check_index(data<int64_t>(index), n, means.size(0));
  Tensor out = torch::stable::new_empty(means, {n, columns});
  int64_t* words = data<int64_t>(state);
  const State start = {static_cast<uint64_t>(words[0]), static_cast<uint64_t>(words[1])};
  if (out.numel() > 0) {
    prefer_large_pages(out);
    const bool diagonal = scales.dim() == 2;
    const auto sample = means.scalar_type() == ScalarType::Float
                            ? (diagonal ? sample_diagonal<float> : sample_factor<float>)
                            : (diagonal ? sample_diagonal<double> : sample_factor<double>);
    sample(start, index, means, scales, out);
  }
  words[1] = static_cast<int64_t>(start.offset + static_cast<uint64_t>(n * ((columns + 3) / 4)));
  return out;
}

#ifdef PYGEN_WITH_CUDA
// The elements in their order, and where each stood.
std::tuple<Tensor, Tensor> sorted(const Tensor& index) {
  StableIValue stack[] = {torch::stable::detail::from(index), torch::stable::detail::from(std::optional<bool>(true)),
                          torch::stable::detail::from(int64_t{-1}), torch::stable::detail::from(false)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::sort", "stable", stack, TORCH_ABI_VERSION));
  return {torch::stable::detail::to<Tensor>(stack[0]), torch::stable::detail::to<Tensor>(stack[1])};
}

Tensor sample_gaussians_cuda(const Tensor& state, const Tensor& index_in, const Tensor& means_in,
                             const Tensor& scales_in, bool fast) {
  check(state, index_in, means_in, scales_in);
  check_devices(state, {&index_in, &means_in, &scales_in});
  const torch::stable::accelerator::DeviceGuard guard(state.get_device_index());
  const Tensor index = torch::stable::contiguous(index_in), means = torch::stable::contiguous(means_in),
               scales = torch::stable::contiguous(scales_in);
  const int64_t n = index.size(0), columns = means.size(1), components = means.size(0), n_scales = scales.size(0);
  const Real dtype = real_of(means.scalar_type());
  Tensor out = torch::stable::new_empty(means, {n, columns});
  if (out.numel() == 0) return out;
  if (components == 0) throw std::out_of_range("index must lie in [0, K), got rows of no component: K is 0.");
  const char* error = nullptr;
  if (scales.dim() == 2) {
    error = launch_sample_diagonal(data<int64_t>(state), data<int64_t>(index), means.data_ptr(), scales.data_ptr(), n,
                                   columns, components, n_scales == 1 ? 0 : scales.size(1), scales.size(1) == 1, dtype,
                                   fast, out.data_ptr(), current_stream(state));
  } else {
    const auto [components_of, order] = sorted(index);
    const FactorWorkspace needed = factor_workspace(n, columns, components, n_scales, dtype);
    const Tensor workspace = torch::stable::new_empty(means, {needed.bytes}, ScalarType::Byte);
    error = launch_sample_factor(data<int64_t>(state), data<int64_t>(components_of), data<int64_t>(order),
                                 means.data_ptr(), scales.data_ptr(), n, columns, components, n_scales, dtype, fast,
                                 workspace.data_ptr(), needed.noise_tiles, out.data_ptr(), current_stream(state));
  }
  STD_TORCH_CHECK(error == nullptr, "sample_gaussians: ", error);
  return out;
}

Tensor pick_cuda(const Tensor& state, const Tensor& weights_in, int64_t n) {
  check_state(state);
  check_weights(weights_in, n);
  check_devices(state, {&weights_in});
  const torch::stable::accelerator::DeviceGuard guard(state.get_device_index());
  const Tensor weights = torch::stable::contiguous(torch::stable::to(weights_in, ScalarType::Double));
  const Tensor totals = torch::stable::empty_like(weights), out = torch::stable::new_empty(state, {n});
  const char* error = launch_pick(data<int64_t>(state), data<double>(weights), weights.size(0), n, data<double>(totals),
                                  data<int64_t>(out), current_stream(state));
  STD_TORCH_CHECK(error == nullptr, "pick: ", error);
  return out;
}
#endif

}  // namespace
}  // namespace pygen

STABLE_TORCH_LIBRARY_IMPL(pygen, CPU, m) {
  m.impl("pick", TORCH_BOX(&pygen::pick_cpu));
  m.impl("sample_gaussians", TORCH_BOX(&pygen::sample_gaussians_cpu));
}
#ifdef PYGEN_WITH_CUDA
STABLE_TORCH_LIBRARY_IMPL(pygen, CUDA, m) {
  m.impl("pick", TORCH_BOX(&pygen::pick_cuda));
  m.impl("sample_gaussians", TORCH_BOX(&pygen::sample_gaussians_cuda));
}
#endif
