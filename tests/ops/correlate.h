// What the tests' libraries for ctypes share: the kernels of strided convolutions called item by item.
#pragma once
#include <cstdlib>
#include <vector>

#include "csrc/conv/conv.h"

namespace pygen {

// Memory for `size` numbers that ends the program if more were written.
template <class T>
class Exactly {
 public:
  explicit Exactly(int64_t size) : bytes_(size * sizeof(T)), memory_(bytes_ + kGuard, kMark) {}
  Exactly(const Exactly&) = delete;
  ~Exactly() {
    for (size_t i = bytes_; i < memory_.size(); ++i)
      if (memory_[i] != kMark) std::abort();
  }
  T* data() { return reinterpret_cast<T*>(memory_.data()); }

 private:
  static constexpr size_t kGuard = 256;
  static constexpr unsigned char kMark = 0xa5;
  size_t bytes_;
  std::vector<unsigned char> memory_;
};

// sizes: images, height, width, small and big channels, parts; strides of the weight: small, big, row, column. Moments
// [parts, 2, out_channels], or null: mean and variance.
template <class T>
void correlate(const CorrelationKernels<T>& k, bool up, const int64_t* sizes, const int64_t* strides, const T* x,
               const T* weight, const Number<T>* bias, int64_t activation, T* out, double* moments) {
  Correlation<T> a = {};
  a.up = up;
  a.images = sizes[0], a.height = sizes[1], a.width = sizes[2];
  a.channels = sizes[up ? 3 : 4], a.out_channels = sizes[up ? 4 : 3];
  a.x = x, a.out = out, a.bias = bias, a.activation = activation, a.slope = 0.25f, a.parts = sizes[5];
  const int64_t summaries = k.summaries(a), size = 1 + 2 * a.out_channels;
  std::vector<double> all(summaries * size);
  if (moments) a.moments = all.data();
  Exactly<T> packed(k.packed_size(a)), scratch(k.scratch_size(a));
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

template <class T>
void weight_gradient(const WeightGradientKernels<T>& k, const int64_t* sizes, const int64_t* strides, const T* small,
                     const T* big, Number<T>* out) {
  WeightGradient<T> a = {};
  a.images = sizes[0], a.height = sizes[1], a.width = sizes[2];
  a.small_channels = sizes[3], a.big_channels = sizes[4];
  a.parts = 1 + a.images % 2;  // that are computed at a time
  a.small = small, a.big = big;
  a.out = {out, strides[0], strides[1], strides[2], strides[3]};
  Exactly<T> packed(k.pack ? k.packed_size(a) : 0), scratch(k.scratch_size(a));
  for (int64_t item = 0; k.pack && item < k.pack_items(a); ++item) k.pack(a, item, packed.data());
  a.packed = packed.data();
  for (int64_t item = 0; item < k.items(a); ++item) k.run(a, item, scratch.data());
}

}  // namespace pygen
