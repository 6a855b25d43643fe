// Binds the conv family's CUDA kernels to the operators that pygen/ops defines. Kernels have maps in NHWC: what comes
// otherwise is copied, and results are copied to NCHW where neither x nor the weight is in channels-last format.
#include <initializer_list>
#include <optional>
#include <tuple>

#include "../common.h"
#include "../portable.h"
#include "cuda.h"

namespace pygen {
namespace {

using torch::headeronly::MemoryFormat;
using Maybe = std::optional<Tensor>;

// As a convolution of PyTorch decides on its result's memory format.
bool in_channels_last(const Tensor& x) {
  if (x.stride(1) == 0 || x.numel() == 0) return false;
  int64_t least = 0;
  for (const int dim : {1, 3, 2, 0}) {
    if (x.stride(dim) < least || (dim == 0 && least == x.stride(1))) return false;
    least = x.stride(dim) * x.size(dim);
  }
  return true;
}

// [n, c, h, w], in memory [n, h, w, c].
Tensor empty_nhwc(const Tensor& like, int64_t n, int64_t c, int64_t h, int64_t w) {
  Tensor nhwc = torch::stable::new_empty(like, {n, h, w, c}), nchw = torch::stable::transpose(nhwc, 1, 3);
  return torch::stable::transpose(nchw, 2, 3);
}

// In memory [n, h, w, c], at a multiple of 16 bytes.
Tensor nhwc(const Tensor& x) {
  const Tensor last = torch::stable::contiguous(x, MemoryFormat::ChannelsLast);
  return is_aligned(last.data_ptr()) ? last : torch::stable::clone(last);
}

// A map that kernels write, and what of it is given back.
struct Result {
  Tensor out, written;

  Result(const Tensor& like, bool channels_last, int64_t n, int64_t c, int64_t h, int64_t w)
      : out(channels_last ? empty_nhwc(like, n, c, h, w) : torch::stable::new_empty(like, {n, c, h, w})),
        written(channels_last || c == 1 || h * w == 1 ? out : empty_nhwc(like, n, c, h, w)) {}

  Tensor finished() {
    if (written.data_ptr() != out.data_ptr()) torch::stable::copy_(out, written);
    return out;
  }
};

// What statistics and batch norm's parameters have.
ScalarType computed_type(const Tensor& x) {
  return x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

struct Sizes {
  int64_t batch, height, width, small, large;  // sides of the small map
  int64_t channels, out_height, out_width;     // of the result
  bool transposed, channels_last;
  Real dtype;

  Sizes(const Tensor& x, const Tensor& weight, bool transposed_)
      : transposed(transposed_), channels_last(false), dtype(real_of(x.scalar_type())) {
    constexpr int64_t kMost = int64_t{1} << 30;
    const ScalarType type = x.scalar_type();
    STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::Double || type == ScalarType::Half ||
                        type == ScalarType::BFloat16,
                    "x must be float32, float64, float16 or bfloat16");
    STD_TORCH_CHECK(x.dim() == 4 && weight.dim() == 4 && weight.size(2) == 4 && weight.size(3) == 4,
                    "x must be [N, C, H, W], and weight [C_out, C, 4, 4], or [C, C_out, 4, 4] if transposed");
    STD_TORCH_CHECK(weight.scalar_type() == type, "x and weight must have one dtype");
    STD_TORCH_CHECK(x.size(1) == weight.size(transposed ? 0 : 1), "x must have as many channels as weight takes");
    STD_TORCH_CHECK(transposed || (x.size(2) % 2 == 0 && x.size(3) % 2 == 0), "H and W of x must be even");
    check_devices(x, {&weight});
    for (const int64_t size : {x.size(2), x.size(3), weight.size(0), weight.size(1)})
      STD_TORCH_CHECK(size > 0 && size <= kMost, "sides and channels must lie between 1 and 2^30");
    const int64_t scale = transposed ? 1 : 2;
    batch = x.size(0), height = x.size(2) / scale, width = x.size(3) / scale;
    small = weight.size(0), large = weight.size(1);
    channels = transposed ? large : small;
    out_height = transposed ? 2 * height : height, out_width = transposed ? 2 * width : width;
    channels_last = in_channels_last(x) || in_channels_last(weight);
  }

  Result grad_x(const Tensor& x) const { return {x, channels_last, batch, x.size(1), x.size(2), x.size(3)}; }
  Tensor grad_weight(const Tensor& weight) const {
    return in_channels_last(weight) ? empty_nhwc(weight, small, large, 4, 4)
                                    : torch::stable::new_empty(weight, {small, large, 4, 4});
  }
  Result result(const Tensor& x) const { return {x, channels_last, batch, channels, out_height, out_width}; }
  void check_result(const Tensor& x, const Tensor& tensor, const char* expected) const {
    STD_TORCH_CHECK(tensor.scalar_type() == x.scalar_type() && tensor.dim() == 4 && tensor.size(0) == batch &&
                        tensor.size(1) == channels && tensor.size(2) == out_height && tensor.size(3) == out_width,
                    expected);
    check_devices(x, {&tensor});
  }
  void check_batches(int64_t n_batches) const {
    constexpr int64_t kMost = 65535;  // of a grid's second dimension
    STD_TORCH_CHECK(n_batches >= 1 && n_batches <= kMost && batch > 0 && batch % n_batches == 0,
                    "n_batches must divide the batch, which must not be empty, and be at most 65535");
  }
};

// A vector of the result's channels, contiguous; null if it is missing.
struct Vector {
  Maybe tensor;

  Vector(const Tensor& x, const Maybe& from, int64_t channels, ScalarType type, const char* expected) {
    if (!from.has_value()) return;
    STD_TORCH_CHECK(from->dim() == 1 && from->size(0) == channels && from->scalar_type() == type, expected);
    check_devices(x, {&*from});
    tensor = torch::stable::contiguous(*from);
  }
  const void* data() const { return tensor ? tensor->data_ptr() : nullptr; }
};

Tensor checked_statistics(const Tensor& x, const Tensor& from, int64_t n_batches, int64_t channels) {
  STD_TORCH_CHECK(from.scalar_type() == computed_type(x) && from.dim() == 2 && from.size(0) == n_batches &&
                      from.size(1) == channels,
                  "mean and var must be float32 (float64 where x is) [n_batches, C_out]");
  check_devices(x, {&from});
  return torch::stable::contiguous(from);
}

constexpr const char* kNormVectors = "norm_weight and norm_bias must be float32 (float64 where x is) [C_out]";

Tensor workspace_of(const Tensor& x, const char* error, int64_t bytes) {
  STD_TORCH_CHECK(error == nullptr, "strided_conv: ", error);
  return torch::stable::new_empty(x, {bytes}, ScalarType::Byte);
}

// Tensor cores take channels in multiples of 16 bytes. Where a picture's few would keep a layer from them, zeros are
// added: that is sooner done than the layer without them. makes_large: the large map is all that is computed, for which
// there may be a kernel that takes few.
struct Filling {
  int64_t small, large;  // channels that are missing

  Filling(const Sizes& s, bool makes_large) : small(missing(s.small, s.dtype)), large(missing(s.large, s.dtype)) {
    if (makes_large && conv_takes_few(s.small + small, s.large, s.dtype)) large = 0;
  }
  explicit operator bool() const { return small > 0 || large > 0; }

  static int64_t missing(int64_t channels, Real dtype) {
    const int64_t quad = dtype == Real::kDouble ? 1 : dtype == Real::kFloat ? 4 : 8;
    return (quad - channels % quad) % quad;
  }
  Tensor map(const Tensor& x, bool is_small) const {
    return torch::stable::pad(x, {0, 0, 0, 0, 0, is_small ? small : large});
  }
  Tensor weight(const Tensor& w) const { return torch::stable::pad(w, {0, 0, 0, 0, 0, large, 0, small}); }
};

// Copies what `to` has room for: the first channels.
void copy_first(Tensor from, Tensor to) {
  for (int64_t dim = 0; dim < to.dim(); ++dim) from = torch::stable::narrow(from, dim, 0, to.size(dim));
  torch::stable::copy_(to, from);
}

Tensor act_cuda(const Tensor& x, const Tensor& weight, const Maybe& bias, bool transposed, int64_t activation,
                double slope) {
  const Sizes s(x, weight, transposed);
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  if (bias && bias->scalar_type() == computed_type(x) && x.scalar_type() != computed_type(x))
    return act_cuda(x, weight, torch::stable::to(*bias, x.scalar_type()), transposed, activation, slope);
  const Vector summand(x, bias, s.channels, x.scalar_type(), "bias must be [C_out] in the dtype of x, or in float32");
  Result y = s.result(x);
  if (s.batch == 0) return y.out;
  if (const Filling filling(s, transposed); filling) {
    Maybe filled;
    if (bias) filled = torch::stable::pad(*bias, {0, transposed ? filling.large : filling.small});
    copy_first(act_cuda(filling.map(x, transposed), filling.weight(weight), filled, transposed, activation, slope),
               y.out);
    return y.out;
  }
  const Tensor from = nhwc(x), taps = nhwc(weight);
  const char* error = launch_conv_act(from.data_ptr(), taps.data_ptr(), summand.data(), s.batch, s.height, s.width,
                                      s.small, s.large, transposed, static_cast<int>(activation), slope, s.dtype,
                                      y.written.data_ptr(), current_stream(x));
  STD_TORCH_CHECK(error == nullptr, "strided_conv_act: ", error);
  return y.finished();
}

std::tuple<Tensor, Tensor, Tensor, Tensor> bn_act_cuda(const Tensor& x, const Tensor& weight, const Maybe& norm_weight,
                                                       const Maybe& norm_bias, bool transposed, int64_t n_batches,
                                                       double eps, int64_t activation, double slope) {
  const Sizes s(x, weight, transposed);
  s.check_batches(n_batches);
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const ScalarType computed = computed_type(x);
  const Vector factors(x, norm_weight, s.channels, computed, kNormVectors);
  const Vector summands(x, norm_bias, s.channels, computed, kNormVectors);
  Result y = s.result(x), z = s.result(x);
  Tensor mean = torch::stable::new_empty(x, {n_batches, s.channels}, computed),
         var = torch::stable::new_empty(x, {n_batches, s.channels}, computed);
  const Tensor from = nhwc(x), taps = nhwc(weight);
  int64_t bytes = 0;
  const char* error = conv_bytes(s.batch, s.height, s.width, s.small, s.large, transposed, n_batches, s.dtype, &bytes);
  const Tensor workspace = workspace_of(x, error, bytes);
  error = launch_conv_bn_act(from.data_ptr(), taps.data_ptr(), factors.data(), summands.data(), s.batch, s.height,
                             s.width, s.small, s.large, transposed, n_batches, eps, static_cast<int>(activation), slope,
                             s.dtype, workspace.data_ptr(), y.written.data_ptr(), z.written.data_ptr(), mean.data_ptr(),
                             var.data_ptr(), current_stream(x));
  STD_TORCH_CHECK(error == nullptr, "strided_conv_bn_act: ", error);
  return {y.finished(), z.finished(), mean, var};
}

// What batch norm adds to a backward; nothing of it without.
struct NormOf {
  Tensor mean, var;
  Vector weight, bias;
  double eps;
};

// grad_norm_weight, if that is not null, and grad_bias are written.
std::tuple<Tensor, Tensor> both_gradients(const Sizes& s, const Tensor& grad, const Tensor& x, const Tensor& weight,
                                          const Tensor& result, const NormOf* norm, int64_t n_batches,
                                          int64_t activation, double slope, bool needs_x, bool needs_weight,
                                          const Tensor* grad_norm_weight, const Tensor& grad_bias) {
  const bool taps_last = !in_channels_last(weight);
  Maybe grad_weight;
  std::optional<Result> grad_x;
  if (needs_x) grad_x = s.grad_x(x);
  if (needs_weight) grad_weight = s.grad_weight(weight);
  const auto results = [&]() -> std::tuple<Tensor, Tensor> {
    return {grad_x ? grad_x->finished() : torch::stable::new_empty(x, {0}),
            grad_weight ? *grad_weight : torch::stable::new_empty(weight, {0})};
  };
  if (s.batch == 0) {
    Tensor zeros = grad_bias;
    torch::stable::zero_(zeros);
    if (grad_weight) torch::stable::zero_(*grad_weight);
    return results();
  }
  const Tensor to = nhwc(grad), from = nhwc(x), taps = nhwc(weight), of = nhwc(result);
  int64_t bytes = 0;
  const char* error = conv_backward_bytes(s.batch, s.height, s.width, s.small, s.large, s.transposed, n_batches,
                                          s.dtype, needs_weight, &bytes);
  const Tensor workspace = workspace_of(x, error, bytes);
  error = launch_conv_backward(
      to.data_ptr(), from.data_ptr(), taps.data_ptr(), of.data_ptr(), norm ? norm->mean.data_ptr() : nullptr,
      norm ? norm->var.data_ptr() : nullptr, norm ? norm->weight.data() : nullptr, norm ? norm->bias.data() : nullptr,
      s.batch, s.height, s.width, s.small, s.large, s.transposed, n_batches, norm ? norm->eps : 0,
      static_cast<int>(activation), slope, s.dtype, taps_last, workspace.data_ptr(),
      grad_x ? grad_x->written.data_ptr() : nullptr, grad_weight ? grad_weight->data_ptr() : nullptr,
      grad_norm_weight ? grad_norm_weight->data_ptr() : nullptr, grad_bias.data_ptr(), current_stream(x));
  STD_TORCH_CHECK(error == nullptr, "strided_conv_backward: ", error);
  return results();
}

std::tuple<Tensor, Tensor, Tensor> act_backward_cuda(const Tensor& grad, const Tensor& x, const Tensor& weight,
                                                     const Tensor& y, bool transposed, int64_t activation, double slope,
                                                     bool needs_x, bool needs_weight) {
  const Sizes s(x, weight, transposed);
  for (const Tensor* tensor : {&grad, &y}) s.check_result(x, *tensor, "grad and y must be as the result is");
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const Tensor grad_bias = torch::stable::new_empty(weight, {s.channels});
  if (const Filling filling(s, !transposed && !needs_weight); filling && s.batch > 0) {
    const auto [of_x, of_weight, of_bias] =
        act_backward_cuda(filling.map(grad, !transposed), filling.map(x, transposed), filling.weight(weight),
                          filling.map(y, !transposed), transposed, activation, slope, needs_x, needs_weight);
    const Tensor grad_x = needs_x ? s.grad_x(x).out : of_x,
                 grad_weight = needs_weight ? s.grad_weight(weight) : of_weight;
    if (needs_x) copy_first(of_x, grad_x);
    if (needs_weight) copy_first(of_weight, grad_weight);
    copy_first(of_bias, grad_bias);
    return {grad_x, grad_weight, grad_bias};
  }
  const auto [grad_x, grad_weight] =
      both_gradients(s, grad, x, weight, y, nullptr, 1, activation, slope, needs_x, needs_weight, nullptr, grad_bias);
  return {grad_x, grad_weight, grad_bias};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> bn_act_backward_cuda(
    const Tensor& grad, const Tensor& x, const Tensor& weight, const Tensor& z, const Tensor& mean, const Tensor& var,
    const Maybe& norm_weight, const Maybe& norm_bias, bool transposed, int64_t n_batches, double eps,
    int64_t activation, double slope, bool needs_x, bool needs_weight) {
  const Sizes s(x, weight, transposed);
  s.check_batches(n_batches);
  for (const Tensor* tensor : {&grad, &z}) s.check_result(x, *tensor, "grad and z must be as the result is");
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const ScalarType computed = computed_type(x);
  const NormOf norm = {checked_statistics(x, mean, n_batches, s.channels),
                       checked_statistics(x, var, n_batches, s.channels),
                       Vector(x, norm_weight, s.channels, computed, kNormVectors),
                       Vector(x, norm_bias, s.channels, computed, kNormVectors), eps};
  const Tensor grad_norm_weight = torch::stable::new_empty(mean, {s.channels}),
               grad_norm_bias = torch::stable::new_empty(mean, {s.channels});
  const auto [grad_x, grad_weight] = both_gradients(s, grad, x, weight, z, &norm, n_batches, activation, slope, needs_x,
                                                    needs_weight, &grad_norm_weight, grad_norm_bias);
  return {grad_x, grad_weight, grad_norm_weight, grad_norm_bias};
}

}  // namespace
}  // namespace pygen

STABLE_TORCH_LIBRARY_IMPL(pygen, CUDA, m) {
  m.impl("strided_conv_act", TORCH_BOX(&pygen::act_cuda));
  m.impl("strided_conv_act_backward", TORCH_BOX(&pygen::act_backward_cuda));
  m.impl("strided_conv_bn_act", TORCH_BOX(&pygen::bn_act_cuda));
  m.impl("strided_conv_bn_act_backward", TORCH_BOX(&pygen::bn_act_backward_cuda));
}
