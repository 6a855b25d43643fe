// The CPU's kernels of strided convolutions in bfloat16 by a matrix unit, one instruction set's, for ctypes.
#include <vector>

#include "csrc/conv/conv.h"
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

// sizes: images, height, width, small and big channels, parts; strides of the weight: small, big, row, column. Moments
// [parts, 2, out_channels]: mean and variance.
void correlate(bool up, const int64_t* sizes, const int64_t* strides, const BFloat16* x, const BFloat16* weight,
               const float* bias, int64_t activation, BFloat16* out, double* moments) {
  const CorrelationKernels<BFloat16>& k = kernels::kBlocks;
  Correlation<BFloat16> a = {};
  a.up = up;
  a.images = sizes[0], a.height = sizes[1], a.width = sizes[2];
  a.channels = sizes[up ? 3 : 4], a.out_channels = sizes[up ? 4 : 3];
  a.x = x, a.out = out, a.bias = bias, a.activation = activation, a.slope = 0.25f, a.parts = sizes[5];
  const int64_t summaries = k.summaries(a), size = 1 + 2 * a.out_channels;
  std::vector<double> all(summaries * size);
  if (moments) a.moments = all.data();
  std::vector<BFloat16> packed(k.packed_size(a)), scratch(k.scratch_size(a));
  for (int64_t item = 0; item < k.pack_items(a); ++item)
    k.pack(a, {weight, strides[0], strides[1], strides[2], strides[3]}, item, packed.data());
  a.packed = packed.data();
  for (int64_t item = 0; item < k.items(a); ++item) k.run(a, item, scratch.data());
  if (!moments) return;
  for (int64_t part = 0; part < a.parts; ++part)
    for (int64_t c = 0; c < a.out_channels; ++c) {
      double n = 0, sum = 0, squares = 0;
      for (int64_t i = part * summaries / a.parts; i < (part + 1) * summaries / a.parts; ++i) {
        const double count = all[i * size], mean = all[i * size + 1 + c];
        n += count, sum += count * mean, squares += all[i * size + 1 + a.out_channels + c] + count * mean * mean;
      }
      double* to = moments + part * 2 * a.out_channels;
      to[c] = sum / n;
      to[a.out_channels + c] = squares / n - sum / n * sum / n;
    }
}

void weight_gradient(const int64_t* sizes, const int64_t* strides, const BFloat16* small, const BFloat16* big,
                     BFloat16* out) {
  const WeightGradientKernels<BFloat16>& k = kernels::kBlocksGradient;
  WeightGradient<BFloat16> a = {sizes[0], sizes[1], sizes[2],
                                sizes[3], sizes[4], 1,
                                small,    big,      {out, strides[0], strides[1], strides[2], strides[3]},
                                nullptr};
  std::vector<BFloat16> packed(k.packed_size(a)), scratch(k.scratch_size(a));
  for (int64_t item = 0; item < k.pack_items(a); ++item) k.pack(a, item, packed.data());
  a.packed = packed.data();
  for (int64_t item = 0; item < k.items(a); ++item) k.run(a, item, scratch.data());
}
}
