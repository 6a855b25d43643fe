// The CUDA kernels of the conv family as their binding sees them: convolutions of kernel 4, stride 2 and padding 1.
// Everything lies on the device, at multiples of 16 bytes. Maps are [batch, height, width, channels]: the small one
// height x width with `small` channels, the large one twice that with `large`. `transposed`: x is the small one. The
// weight is [small, 16, large]. Statistics and batch norm's parameters are float, or double if dtype is. Functions give
// an error's text or null.
//
// float is as exact as float is, whether PyTorch allows TF32 or not: three TF32 products make one, where its own
// convolutions would take one.
#pragma once
#include <cstdint>

#include "../real.h"

namespace pygen {

// Whether a large map of so few channels is computed, without batch norm, as fast as it is; else tensor cores take
// channels in multiples of 16 bytes alone.
bool conv_takes_few(int64_t small, int64_t large, Real dtype);

// What `workspace` must have; weight: whether its gradient is asked for.
const char* conv_bytes(int64_t batch, int64_t height, int64_t width, int64_t small, int64_t large, bool transposed,
                       int64_t n_batches, Real dtype, int64_t* bytes);
const char* conv_backward_bytes(int64_t batch, int64_t height, int64_t width, int64_t small, int64_t large,
                                bool transposed, int64_t n_batches, Real dtype, bool weight, int64_t* bytes);

// y = activation(convolution + bias); bias may be null. activation counts as pygen.ops.strided_conv.ACTIVATIONS does.
const char* launch_conv_act(const void* x, const void* weight, const void* bias, int64_t batch, int64_t height,
                            int64_t width, int64_t small, int64_t large, bool transposed, int activation, double slope,
                            Real dtype, void* y, void* stream);

// z is the convolution, mean and variance [n_batches, channels] those of its equal parts, y the activation of z
// normalised; norm_weight and norm_bias [channels] may be null.
const char* launch_conv_bn_act(const void* x, const void* weight, const void* norm_weight, const void* norm_bias,
                               int64_t batch, int64_t height, int64_t width, int64_t small, int64_t large,
                               bool transposed, int64_t n_batches, double eps, int activation, double slope, Real dtype,
                               void* workspace, void* y, void* z, void* mean, void* variance, void* stream);

// Gradients. With batch norm `from` is z; without it, mean is null, `from` is y, grad_bias has dtype, and
// grad_norm_weight is null. grad_x and grad_weight may be null; the latter is [small, large, 16] if taps_last.
const char* launch_conv_backward(const void* grad, const void* x, const void* weight, const void* from,
                                 const void* mean, const void* variance, const void* norm_weight, const void* norm_bias,
                                 int64_t batch, int64_t height, int64_t width, int64_t small, int64_t large,
                                 bool transposed, int64_t n_batches, double eps, int activation, double slope,
                                 Real dtype, bool taps_last, void* workspace, void* grad_x, void* grad_weight,
                                 void* grad_norm_weight, void* grad_bias, void* stream);

}  // namespace pygen
