// The CPU's kernels of strided convolutions, one instruction set's, for ctypes.
#include <vector>

#include "csrc/conv/conv.h"

using namespace pygen;
namespace kernels = pygen::PYGEN_ISA;

extern "C" {

// sizes: images, height, width, small and big channels; strides of the weight: small, big, row, column.
void correlate(bool tiled, bool up, const int64_t* sizes, const int64_t* strides, const float* x, const float* weight,
               float* out) {
  const CorrelationKernels<float>& k = tiled ? kernels::kTiledFloat : kernels::kDirectFloat;
  Correlation<float> a = {};
  a.up = up;
  a.images = sizes[0], a.height = sizes[1], a.width = sizes[2];
  a.channels = sizes[up ? 3 : 4], a.out_channels = sizes[up ? 4 : 3];
  a.x = x, a.out = out, a.parts = 1;
  std::vector<float> packed(k.packed_size(a)), scratch(k.scratch_size(a));
  for (int64_t item = 0; item < k.pack_items(a); ++item)
    k.pack(a, {weight, strides[0], strides[1], strides[2], strides[3]}, item, packed.data());
  a.packed = packed.data();
  for (int64_t item = 0; item < k.items(a); ++item) k.run(a, item, scratch.data());
}

void transpose(int64_t rows, int64_t columns, const float* from, float* to) {
  kernels::kRowsFloat.transpose(rows, columns, from, to);
}

void weight_gradient(bool tiled, const int64_t* sizes, const int64_t* strides, const float* small, const float* big,
                     float* out) {
  const WeightGradientKernels<float>& k = tiled ? kernels::kTiledGradientFloat : kernels::kDirectGradientFloat;
  const WeightGradient<float> a = {sizes[0], sizes[1], sizes[2],
                                   sizes[3], sizes[4], 1 + sizes[0] % 2,
                                   small,    big,      {out, strides[0], strides[1], strides[2], strides[3]}};
  std::vector<float> scratch(k.scratch_size(a));
  for (int64_t item = 0; item < k.items(a); ++item) k.run(a, item, scratch.data());
}
}
