// The CPU's kernels of strided convolutions, one instruction set's, for ctypes.
#include "correlate.h"

using namespace pygen;
namespace kernels = pygen::PYGEN_ISA;

extern "C" {

void correlate(bool tiled, bool up, const int64_t* sizes, const int64_t* strides, const float* x, const float* weight,
               float* out) {
  pygen::correlate(tiled ? kernels::kTiledFloat : kernels::kDirectFloat, up, sizes, strides, x, weight, nullptr, kNone,
                   out, nullptr);
}

void weight_gradient(bool tiled, const int64_t* sizes, const int64_t* strides, const float* small, const float* big,
                     float* out) {
  pygen::weight_gradient(tiled ? kernels::kTiledGradientFloat : kernels::kDirectGradientFloat, sizes, strides, small,
                         big, out);
}

void transpose(int64_t rows, int64_t columns, const float* from, float* to) {
  kernels::kRowsFloat.transpose(rows, columns, from, to);
}
}
