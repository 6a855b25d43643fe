// Pictures and weights as the bindings of strided convolutions see them: any memory format and precision outside, NHWC
// in float or double inside.
#pragma once
#include <algorithm>
#include <optional>
#include <vector>

#include "../common.h"
#include "../isa.h"
#include "../large_pages.h"
#include "conv.h"

namespace pygen {

using torch::headeronly::MemoryFormat;

// As a convolution of PyTorch decides on its result's memory format.
inline bool is_channels_last(const Tensor& x) {
  if (x.stride(1) == 0 || x.numel() == 0) return false;
  int64_t least = 0;
  for (const int dim : {1, 3, 2, 0}) {
    if (x.stride(dim) < least || (dim == 0 && least == x.stride(1))) return false;
    least = x.stride(dim) * x.size(dim);
  }
  return true;
}

template <class T>
constexpr ScalarType kType = sizeof(T) == 4 ? ScalarType::Float : ScalarType::Double;

// Calls f with a number of the type that is computed in.
template <class F>
void dispatch(ScalarType type, const F& f) {
  type == ScalarType::Double ? f(double{}) : f(float{});
}

template <class T>
Tensor numbers(const Tensor& x, MemoryFormat format = MemoryFormat::Preserve) {
  if (x.scalar_type() == kType<T>) return format == MemoryFormat::Preserve ? x : torch::stable::contiguous(x, format);
  return torch::stable::to(x, kType<T>, {}, {}, {}, false, false, format);
}

template <class T>
Tensor pictures(const Tensor& x) {
  return numbers<T>(x, MemoryFormat::ChannelsLast);
}

inline Tensor empty(torch::headeronly::IntHeaderOnlyArrayRef shape, ScalarType type, bool channels_last) {
  return torch::stable::empty(shape, type, {}, {}, {},
                              channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
}

// Where pictures are written in NHWC: into a tensor itself or, if it is of another kind, beside it.
template <class T>
class Result {
 public:
  explicit Result(const Tensor& to) : to_(to), written_(to) {
    const bool fits =
        to.size(1) == 1 || (is_channels_last(to) && to.size(0) * to.size(1) * to.size(2) * to.size(3) > 0);
    if (!fits || to.scalar_type() != kType<T>) written_ = empty(to.sizes(), kType<T>, true);
    prefer_large_pages(written_);
  }
  T* data() const { return static_cast<T*>(written_.data_ptr()); }
  void write() {
    if (written_.data_ptr() != to_.data_ptr()) torch::stable::copy_(to_, written_);
  }

 private:
  Tensor to_, written_;
};

// Aligned memory of a thread, kept for its next item.
template <class T>
T* scratch(int64_t size) {
  constexpr int64_t kAlignment = 64;
  thread_local std::vector<char> memory;
  const size_t bytes = size * sizeof(T) + kAlignment;
  if (memory.size() < bytes) memory.resize(bytes);
  const uintptr_t address = reinterpret_cast<uintptr_t>(memory.data());
  return reinterpret_cast<T*>((address + kAlignment - 1) / kAlignment * kAlignment);
}

struct Layer {
  bool transposed;
  int64_t images, height, width, small_channels, big_channels;
  bool channels_last;

  Layer(const Tensor& x, const Tensor& weight, bool is_transposed) : transposed(is_transposed) {
    STD_TORCH_CHECK(
        x.dim() == 4 && weight.dim() == 4 && weight.size(2) == 4 && weight.size(3) == 4 &&
            x.size(1) == weight.size(transposed ? 0 : 1) && (transposed || (x.size(2) % 2 == 0 && x.size(3) % 2 == 0)),
        "x must be [N, C, H, W], H and W even if it is halved, and weight [C_out, C, 4, 4], or [C, C_out, 4, 4] if "
        "transposed");
    STD_TORCH_CHECK(x.scalar_type() == weight.scalar_type(), "x and weight must have one dtype");
    STD_TORCH_CHECK(x.numel() > 0 && weight.numel() > 0, "x and weight must not be empty");
    const int64_t scale = transposed ? 1 : 2;
    images = x.size(0), height = x.size(2) / scale, width = x.size(3) / scale;
    small_channels = weight.size(0), big_channels = weight.size(1);
    channels_last = is_channels_last(x) || is_channels_last(weight);
  }
  int64_t out_channels() const { return transposed ? big_channels : small_channels; }
  int64_t out_pixels() const { return images * height * width * (transposed ? 4 : 1); }
  Tensor result(ScalarType type) const {
    const int64_t scale = transposed ? 2 : 1;
    return empty({images, out_channels(), scale * height, scale * width}, type, channels_last);
  }
  template <class T>
  Correlation<T> correlation(bool up, const Tensor& x, T* out) const {
    Correlation<T> a = {};
    a.up = up;
    a.images = images, a.height = height, a.width = width;
    a.channels = up ? small_channels : big_channels, a.out_channels = up ? big_channels : small_channels;
    a.x = static_cast<const T*>(x.data_ptr());
    a.out = out;
    a.parts = 1;
    return a;
  }
  template <class T>
  static Weight<T> weight(const Tensor& tensor) {
    return {static_cast<T*>(tensor.data_ptr()), tensor.stride(0), tensor.stride(1), tensor.stride(2), tensor.stride(3)};
  }
};

template <class T>
struct Kernels {
  const CorrelationKernels<T>& correlation;
  const WeightGradientKernels<T>& gradient;
  const RowKernels<T>& rows;
};

// Tiles waste what is missing of 4x4 pixels, and transformed weights are six times as large.
template <class T>
Kernels<T> kernels_of(const Layer& layer) {
  constexpr int64_t kLeastChannels = 8, kLeastSide = 3;
  const bool tiled = std::min(layer.small_channels, layer.big_channels) >= kLeastChannels &&
                     std::min(layer.height, layer.width) >= kLeastSide;
  if constexpr (sizeof(T) == 4)
    return {tiled ? PYGEN_BEST(kTiledFloat) : PYGEN_BEST(kDirectFloat),
            tiled ? PYGEN_BEST(kTiledGradientFloat) : PYGEN_BEST(kDirectGradientFloat), PYGEN_BEST(kRowsFloat)};
  else
    return {tiled ? PYGEN_BEST(kTiledDouble) : PYGEN_BEST(kDirectDouble),
            tiled ? PYGEN_BEST(kTiledGradientDouble) : PYGEN_BEST(kDirectGradientDouble), PYGEN_BEST(kRowsDouble)};
}

template <class T>
void correlate(const CorrelationKernels<T>& kernels, Correlation<T>& a, const Weight<const T>& weight) {
  const Tensor packed = empty({kernels.packed_size(a)}, kType<T>, false);
  prefer_large_pages(packed);
  T* to = data<T>(packed);
  torch::stable::parallel_for(0, kernels.pack_items(a), 1, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) kernels.pack(a, weight, item, to);
  });
  a.packed = to;
  torch::stable::parallel_for(0, kernels.items(a), 1, [&](int64_t begin, int64_t end) {
    T* memory = scratch<T>(kernels.scratch_size(a));
    for (int64_t item = begin; item < end; ++item) kernels.run(a, item, memory);
  });
}

template <class T>
void weight_gradient(const WeightGradientKernels<T>& kernels, const WeightGradient<T>& a) {
  const int64_t positions = kernels.positions(a), chunk = kernels.chunk(a), size = kernels.gathered_size(a);
  const Tensor memory = empty({size}, kType<T>, false);
  prefer_large_pages(memory);
  T* gathered = data<T>(memory);
  for (int64_t first = 0; first < positions; first += chunk) {
    const int64_t count = std::min(chunk, positions - first);
    if (size > 0)
      torch::stable::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
        kernels.gather(a, first, count, begin, end, scratch<T>(kernels.scratch_size(a)), gathered);
      });
    torch::stable::parallel_for(0, kernels.items(a), 1, [&](int64_t begin, int64_t end) {
      T* own = scratch<T>(kernels.scratch_size(a));
      for (int64_t item = begin; item < end; ++item) kernels.multiply(a, first, count, item, gathered, own);
    });
  }
}

}  // namespace pygen
