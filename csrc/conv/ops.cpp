// Binds the kernels of strided convolutions to the operators that pygen/ops defines.
#include <cmath>
#include <optional>

#include "pictures.h"

namespace pygen {
namespace {

// Rows of pixels that one item takes.
constexpr int64_t kRowsOfItem = 512;

// Calls f(item, first row, rows) for rows of equal parts, in items none of which has to do with two of them.
template <class F>
void over_rows(int64_t parts, int64_t rows, const F& f) {
  const int64_t blocks = (rows + kRowsOfItem - 1) / kRowsOfItem;
  over_items(parts * blocks, [&](int64_t item) {
    const int64_t first = item % blocks * kRowsOfItem;
    f(item, item / blocks * rows + first, std::min(kRowsOfItem, rows - first));
  });
}

int64_t items_of_rows(int64_t rows) { return (rows + kRowsOfItem - 1) / kRowsOfItem; }

// Of the convolution, from the gradient of its result in NHWC.
template <class T>
std::tuple<Tensor, Tensor> both_gradients(const Layer& layer, const T* grad, const Tensor& x, const Tensor& weight,
                                          bool needs_x, bool needs_weight) {
  const ScalarType type = x.scalar_type();
  Tensor grad_x = needs_x ? empty(x.sizes(), type, layer.channels_last) : empty({0}, type, false);
  Tensor grad_weight = needs_weight ? empty(weight.sizes(), type, is_channels_last(weight)) : empty({0}, type, false);
  const Kernels<T> kernels = kernels_of<T>(layer);
  if (needs_x) {
    Result<T> out(grad_x);
    const Tensor kernel = numbers<T>(weight);
    Correlation<T> a = layer.correlation<T>(!layer.transposed, grad, out.data());
    correlate(kernels.correlation, a, layer.weight<const T>(kernel));
    out.write();
  }
  if (needs_weight) {
    const Tensor in = pictures<T>(x);
    const T* given = data<T>(in);
    Tensor out = numbers<Number<T>>(grad_weight);
    const WeightGradient<T> a = {layer.images,
                                 layer.height,
                                 layer.width,
                                 layer.small_channels,
                                 layer.big_channels,
                                 1,
                                 layer.transposed ? given : grad,
                                 layer.transposed ? grad : given,
                                 layer.weight<Number<T>>(out),
                                 nullptr};
    weight_gradient(kernels.gradient, a);
    if (type != kType<Number<T>>) torch::stable::copy_(grad_weight, out);
  }
  return {grad_x, grad_weight};
}

Tensor act_cpu(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, bool transposed,
               int64_t activation, double slope) {
  const Layer layer(x, weight, transposed);
  Tensor y = layer.result(x.scalar_type());
  dispatch(layer, x.scalar_type(), [&](auto number) {
    using T = decltype(number);
    const Tensor in = pictures<T>(x), kernel = numbers<T>(weight);
    const Tensor summand = bias ? numbers<Number<T>>(*bias, MemoryFormat::Contiguous) : kernel;
    Result<T> out(y);
    Correlation<T> a = layer.correlation<T>(transposed, data<T>(in), out.data());
    a.bias = bias ? data<Number<T>>(summand) : nullptr;
    a.activation = activation;
    a.slope = static_cast<Number<T>>(slope);
    correlate(kernels_of<T>(layer).correlation, a, layer.weight<const T>(kernel));
    out.write();
  });
  return y;
}

std::tuple<Tensor, Tensor, Tensor> act_backward_cpu(const Tensor& grad, const Tensor& x, const Tensor& weight,
                                                    const Tensor& y, bool transposed, int64_t activation, double slope,
                                                    bool needs_x, bool needs_weight) {
  const Layer layer(x, weight, transposed);
  const int64_t channels = layer.out_channels(), rows = layer.out_pixels();
  Tensor grad_bias = empty({channels}, weight.scalar_type(), false), grad_x, grad_weight;
  dispatch(layer, x.scalar_type(), [&](auto number) {
    using T = decltype(number);
    const RowKernels<T>& kernels = kernels_of<T>(layer).rows;
    const Tensor from = pictures<T>(grad), result = activation == kNone ? from : pictures<T>(y);
    const Between<T, Use::kGradient> memory(activation == kNone ? 0 : rows * channels);
    const T* before = activation == kNone ? data<T>(from) : memory.data();
    std::vector<double> sums(items_of_rows(rows) * channels), total(channels);
    over_rows(1, rows, [&](int64_t item, int64_t first, int64_t count) {
      const int64_t at = first * channels;
      if (activation != kNone)
        kernels.activation_gradient(activation, static_cast<Number<T>>(slope), count * channels, data<T>(from) + at,
                                    data<T>(result) + at, memory.data() + at);
      kernels.column_sums(channels, count, before + at, sums.data() + item * channels);
    });
    for (size_t i = 0; i < sums.size(); ++i) total[i % channels] += sums[i];
    Tensor out = numbers<Number<T>>(grad_bias);
    std::copy(total.begin(), total.end(), data<Number<T>>(out));
    if (out.data_ptr() != grad_bias.data_ptr()) torch::stable::copy_(grad_bias, out);
    std::tie(grad_x, grad_weight) = both_gradients<T>(layer, before, x, weight, needs_x, needs_weight);
  });
  return {grad_x, grad_weight, grad_bias};
}

// What of batch norm is the same for all rows of a part.
template <class T>
struct Norm {
  std::vector<T> mean, scale, shift;  // [parts, channels]
  int64_t parts, channels, activation;
  T slope;

  Norm(const Tensor& means, const Tensor& vars, const std::optional<Tensor>& weight, const std::optional<Tensor>& bias,
       double eps, int64_t act, double negative)
      : mean(data<T>(means), data<T>(means) + means.numel()),
        scale(mean.size()),
        shift(mean.size()),
        parts(means.size(0)),
        channels(means.size(1)),
        activation(act),
        slope(static_cast<T>(negative)) {
    const Tensor factors = weight ? torch::stable::contiguous(*weight) : means;
    const Tensor summands = bias ? torch::stable::contiguous(*bias) : means;
    for (size_t i = 0; i < mean.size(); ++i) {
      const double factor = weight ? data<T>(factors)[i % channels] : 1;
      scale[i] = static_cast<T>(factor / std::sqrt(data<T>(vars)[i] + eps));
      shift[i] = bias ? data<T>(summands)[i % channels] : T(0);
    }
  }
  template <class Stored>
  Normalization<Stored> of_part(int64_t part) const {
    const int64_t at = part * channels;
    return {mean.data() + at, scale.data() + at, shift.data() + at, channels, activation, slope};
  }
};

// Chan's formula over the summaries of each part, in their order.
template <class T>
void merge(const std::vector<double>& moments, int64_t parts, int64_t channels, T* mean, T* var) {
  const int64_t items = static_cast<int64_t>(moments.size()) / (1 + 2 * channels) / parts;
  std::vector<double> means(channels), squares(channels);
  for (int64_t part = 0; part < parts; ++part) {
    double n = 0;
    std::fill(means.begin(), means.end(), 0);
    std::fill(squares.begin(), squares.end(), 0);
    for (int64_t item = part * items; item < (part + 1) * items; ++item) {
      const double *from = moments.data() + item * (1 + 2 * channels), more = from[0], all = n + more;
      for (int64_t c = 0; c < channels; ++c) {
        const double difference = from[1 + c] - means[c];
        means[c] += difference * more / all;
        squares[c] += from[1 + channels + c] + difference * difference * n * more / all;
      }
      n = all;
    }
    for (int64_t c = 0; c < channels; ++c) {
      mean[part * channels + c] = static_cast<T>(means[c]);
      var[part * channels + c] = static_cast<T>(squares[c] / n);
    }
  }
}

std::tuple<Tensor, Tensor, Tensor, Tensor> bn_act_cpu(const Tensor& x, const Tensor& weight,
                                                      const std::optional<Tensor>& norm_weight,
                                                      const std::optional<Tensor>& norm_bias, bool transposed,
                                                      int64_t n_batches, double eps, int64_t activation, double slope) {
  const Layer layer(x, weight, transposed);
  const int64_t channels = layer.out_channels(), rows = layer.out_pixels() / n_batches;
  const ScalarType type = x.scalar_type();
  Tensor y = layer.result(type), z = layer.result(type), mean, var;
  dispatch(layer, type, [&](auto number) {
    using T = decltype(number);
    const Kernels<T> kernels = kernels_of<T>(layer);
    mean = empty({n_batches, channels}, kType<Number<T>>, false);
    var = empty({n_batches, channels}, kType<Number<T>>, false);
    const Tensor in = pictures<T>(x), kernel = numbers<T>(weight);
    Result<T> before(z), after(y);
    Correlation<T> a = layer.correlation<T>(transposed, data<T>(in), before.data());
    a.parts = n_batches;
    std::vector<double> moments(kernels.correlation.summaries(a) * (1 + 2 * channels));
    a.moments = moments.data();
    correlate(kernels.correlation, a, layer.weight<const T>(kernel));
    merge(moments, n_batches, channels, data<Number<T>>(mean), data<Number<T>>(var));
    const Norm<Number<T>> norm(mean, var, norm_weight, norm_bias, eps, activation, slope);
    over_rows(n_batches, rows, [&](int64_t, int64_t first, int64_t count) {
      kernels.rows.normalize(norm.template of_part<T>(first / rows), count, before.data() + first * channels,
                             after.data() + first * channels);
    });
    before.write();
    after.write();
  });
  return {y, z, mean, var};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> bn_act_backward_cpu(
    const Tensor& grad, const Tensor& x, const Tensor& weight, const Tensor& z, const Tensor& mean_in,
    const Tensor& var_in, const std::optional<Tensor>& norm_weight, const std::optional<Tensor>& norm_bias,
    bool transposed, int64_t n_batches, double eps, int64_t activation, double slope, bool needs_x, bool needs_weight) {
  const Layer layer(x, weight, transposed);
  const int64_t channels = layer.out_channels(), rows = layer.out_pixels() / n_batches;
  const Tensor mean = torch::stable::contiguous(mean_in), var = torch::stable::contiguous(var_in);
  Tensor grad_x, grad_weight, grad_scale = empty({channels}, mean.scalar_type(), false),
                              grad_shift = empty({channels}, mean.scalar_type(), false);
  dispatch(layer, x.scalar_type(), [&](auto number) {
    using T = decltype(number);
    const RowKernels<T>& kernels = kernels_of<T>(layer).rows;
    const Tensor from = pictures<T>(grad), before = pictures<T>(z);
    const Between<T, Use::kGradient> out(n_batches * rows * channels);
    const Norm<Number<T>> norm(mean, var, norm_weight, norm_bias, eps, activation, slope);
    std::vector<double> sums(n_batches * items_of_rows(rows) * 2 * channels), scales(channels), shifts(channels);
    over_rows(n_batches, rows, [&](int64_t item, int64_t first, int64_t count) {
      kernels.gradient_sums(norm.template of_part<T>(first / rows), count, data<T>(from) + first * channels,
                            data<T>(before) + first * channels, sums.data() + item * 2 * channels);
    });
    std::vector<Number<T>> coefficients(n_batches * 2 * channels);
    for (int64_t part = 0; part < n_batches; ++part)
      for (int64_t c = 0; c < channels; ++c) {
        double first = 0, second = 0;
        for (int64_t item = part * items_of_rows(rows); item < (part + 1) * items_of_rows(rows); ++item) {
          first += sums[item * 2 * channels + c];
          second += sums[(item * 2 + 1) * channels + c];
        }
        const double inverse = 1 / (data<Number<T>>(var)[part * channels + c] + eps),
                     scale = norm.scale[part * channels + c];
        shifts[c] += first;
        scales[c] += second * std::sqrt(inverse);
        coefficients[part * 2 * channels + c] = static_cast<Number<T>>(scale * first / rows);
        coefficients[(part * 2 + 1) * channels + c] = static_cast<Number<T>>(scale * second * inverse / rows);
      }
    std::copy(scales.begin(), scales.end(), data<Number<T>>(grad_scale));
    std::copy(shifts.begin(), shifts.end(), data<Number<T>>(grad_shift));
    if (!needs_x && !needs_weight) {
      grad_x = empty({0}, x.scalar_type(), false), grad_weight = empty({0}, x.scalar_type(), false);
      return;
    }
    over_rows(n_batches, rows, [&](int64_t, int64_t first, int64_t count) {
      const int64_t part = first / rows, at = first * channels;
      kernels.gradient(norm.template of_part<T>(part), coefficients.data() + part * 2 * channels, count,
                       data<T>(from) + at, data<T>(before) + at, out.data() + at);
    });
    std::tie(grad_x, grad_weight) = both_gradients<T>(layer, out.data(), x, weight, needs_x, needs_weight);
  });
  return {grad_x, grad_weight, grad_scale, grad_shift};
}

}  // namespace
}  // namespace pygen

STABLE_TORCH_LIBRARY_IMPL(pygen, CPU, m) {
  m.impl("strided_conv_act", TORCH_BOX(&pygen::act_cpu));
  m.impl("strided_conv_act_backward", TORCH_BOX(&pygen::act_backward_cpu));
  m.impl("strided_conv_bn_act", TORCH_BOX(&pygen::bn_act_cpu));
  m.impl("strided_conv_bn_act_backward", TORCH_BOX(&pygen::bn_act_backward_cpu));
}
