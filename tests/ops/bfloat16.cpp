// The CPU's other kernels of strided convolutions in bfloat16, one instruction set's, for ctypes.
#include "correlate.h"

using namespace pygen;
namespace kernels = pygen::PYGEN_ISA;

extern "C" {

void correlate(bool up, const int64_t* sizes, const int64_t* strides, const BFloat16* x, const BFloat16* weight,
               const float* bias, int64_t activation, BFloat16* out, double* moments) {
  pygen::correlate(kernels::kDirectBFloat16, up, sizes, strides, x, weight, bias, activation, out, moments);
}

void weight_gradient(const int64_t* sizes, const int64_t* strides, const BFloat16* small, const BFloat16* big,
                     float* out) {
  pygen::weight_gradient(kernels::kDirectGradientBFloat16, sizes, strides, small, big, out);
}

// Of n rows: y [n, channels], sums [3, channels] of grad * act'(y), of it times z - mean, and of z; out [2, n,
// channels], the gradient of z with coefficients [2, channels], and grad * act'(y).
void rows(int64_t n, int64_t channels, int64_t activation, const float* mean, const float* scale, const float* shift,
          const float* coefficients, const BFloat16* z, const BFloat16* grad, BFloat16* y, double* sums,
          BFloat16* out) {
  const RowKernels<BFloat16>& k = kernels::kRowsBFloat16;
  const Normalization<BFloat16> a = {mean, scale, shift, channels, activation, 0.25f};
  k.normalize(a, n, z, y);
  k.gradient_sums(a, n, grad, z, sums);
  k.column_sums(channels, n, z, sums + 2 * channels);
  k.gradient(a, coefficients, n, grad, z, out);
  k.activation_gradient(activation, a.slope, n * channels, grad, y, out + n * channels);
}

void transpose(int64_t rows, int64_t columns, const BFloat16* from, BFloat16* to) {
  kernels::kRowsBFloat16.transpose(rows, columns, from, to);
}
}
