// The CPU's kernels of strided convolutions in bfloat16 by a matrix unit, one instruction set's, for ctypes.
#include "correlate.h"
#include "csrc/isa.h"

namespace pygen::PYGEN_ISA {
extern const CorrelationKernels<BFloat16> kBlocks;
extern const WeightGradientKernels<BFloat16> kBlocksGradient;
}  // namespace pygen::PYGEN_ISA

using namespace pygen;
namespace kernels = pygen::PYGEN_ISA;

extern "C" {

// Whether the processor and the system have what the kernels were compiled for.
bool ready() {
#ifdef __AMX_BF16__
  return has_amx();
#else
  return true;
#endif
}

void correlate(bool up, const int64_t* sizes, const int64_t* strides, const BFloat16* x, const BFloat16* weight,
               const float* bias, int64_t activation, BFloat16* out, double* moments) {
  pygen::correlate(kernels::kBlocks, up, sizes, strides, x, weight, bias, activation, out, moments);
}

void weight_gradient(const int64_t* sizes, const int64_t* strides, const BFloat16* small, const BFloat16* big,
                     float* out) {
  pygen::weight_gradient(kernels::kBlocksGradient, sizes, strides, small, big, out);
}
}
