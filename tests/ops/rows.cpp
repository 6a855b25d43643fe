// The CPU's kernels over rows of channels in bfloat16, one instruction set's, for ctypes.
#include "csrc/conv/conv.h"

using namespace pygen;
namespace kernels = pygen::PYGEN_ISA;

extern "C" {

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
