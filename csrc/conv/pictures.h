// Pictures and weights as the bindings of strided convolutions see them: any memory format and precision outside, NHWC
// inside, in float or double, or in bfloat16 where kernels take that from memory.
#pragma once
#include <algorithm>
#include <array>
#include <memory>
#include <new>
#include <optional>
#include <vector>

#include "../common.h"
#include "../isa.h"
#include "../items.h"
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
constexpr ScalarType kType = std::is_same_v<T, BFloat16> ? ScalarType::BFloat16
                             : std::is_same_v<T, float>  ? ScalarType::Float
                                                         : ScalarType::Double;

template <class T>
Tensor numbers(const Tensor& x, MemoryFormat format = MemoryFormat::Preserve) {
  if (x.scalar_type() == kType<T>) return format == MemoryFormat::Preserve ? x : torch::stable::contiguous(x, format);
  return torch::stable::to(x, kType<T>, {}, {}, {}, false, false, format);
}

inline Tensor empty(torch::headeronly::IntHeaderOnlyArrayRef shape, ScalarType type, bool channels_last) {
  return torch::stable::empty(shape, type, {}, {}, {},
                              channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
}

template <class T>
const RowKernels<T>& row_kernels() {
  if constexpr (std::is_same_v<T, BFloat16>)
    return PYGEN_BEST(kRowsBFloat16);
  else if constexpr (std::is_same_v<T, float>)
    return PYGEN_BEST(kRowsFloat);
  else
    return PYGEN_BEST(kRowsDouble);
}

// Each of the images, a matrix [rows, columns], transposed.
template <class T>
void transpose(int64_t images, int64_t rows, int64_t columns, const T* from, T* to) {
  over_items(images, [&](int64_t image) {
    const int64_t at = image * rows * columns;
    row_kernels<T>().transpose(rows, columns, from + at, to + at);
  });
}

// Whether there is something to transpose: pictures of one channel or pixel are in NCHW and NHWC at once.
inline bool is_channels_first(const Tensor& x) {
  return x.is_contiguous() && x.size(1) > 1 && x.size(2) * x.size(3) > 1;
}

template <class T>
Tensor pictures(const Tensor& x) {
  if (x.scalar_type() != kType<T> || !is_channels_first(x)) return numbers<T>(x, MemoryFormat::ChannelsLast);
  Tensor out = empty(x.sizes(), kType<T>, true);
  transpose(x.size(0), x.size(1), x.size(2) * x.size(3), data<T>(x), data<T>(out));
  return out;
}

// Where pictures are written in NHWC: into a tensor itself or, if it is of another kind, beside it.
template <class T>
class Result {
 public:
  explicit Result(const Tensor& to) : to_(to), written_(to) {
    const bool fits =
        to.size(1) == 1 || (is_channels_last(to) && to.size(0) * to.size(1) * to.size(2) * to.size(3) > 0);
    if (!fits || to.scalar_type() != kType<T>) written_ = empty(to.sizes(), kType<T>, true);
  }
  T* data() const { return static_cast<T*>(written_.data_ptr()); }
  void write() {
    if (written_.data_ptr() == to_.data_ptr()) return;
    if (to_.scalar_type() == kType<T> && is_channels_first(to_))
      transpose(to_.size(0), to_.size(2) * to_.size(3), to_.size(1), data(), static_cast<T*>(to_.data_ptr()));
    else
      torch::stable::copy_(to_, written_);
  }

 private:
  Tensor to_, written_;
};

// Memory of a thread, kept for its next item: on large pages, so that what is made for a second-level cache has a place
// for each of its lines there, whichever pages the system gives.
class Scratch {
 public:
  void* of(size_t bytes) {
    if (bytes > bytes_) {
      bytes_ = 0;
      memory_.reset();
      const size_t more = (bytes + kLargePage - 1) / kLargePage * kLargePage;
      memory_.reset(::operator new(more, kAlignment));
      bytes_ = more;
      prefer_large_pages(memory_.get(), bytes_);
    }
    return memory_.get();
  }

 private:
  static constexpr std::align_val_t kAlignment{kLargePage};
  struct Delete {
    void operator()(void* memory) const { ::operator delete(memory, kAlignment); }
  };
  std::unique_ptr<void, Delete> memory_;
  size_t bytes_ = 0;
};

template <class T>
T* scratch(int64_t size) {
  thread_local Scratch memory;
  return static_cast<T*>(memory.of(size * sizeof(T)));
}

// What a call needs between its passes, kept for the next one of the thread unless it is very large: memory that was
// just used is in the cache, and costs no page faults. Gradients, which threads read where they wrote, have a place for
// each of the last few sizes, so that they also write where they wrote before: what is in another core's cache costs
// many times as much where cores have caches of their own.
enum class Use { kPacked, kGradient, kSums };
template <class T, Use kUse>
class Between {
 public:
  explicit Between(int64_t size) {
    const size_t bytes = size * sizeof(T);
    data_ = static_cast<T*>((bytes <= kKept ? kept(bytes) : own_).of(bytes));
  }
  T* data() const { return data_; }

 private:
  static constexpr size_t kKept = size_t{1} << 26;  // bytes, of all sizes together
  static constexpr size_t kSizes = kUse == Use::kGradient ? 4 : 1;

  static Scratch& kept(size_t bytes) {
    struct Sized {
      size_t bytes = 0;
      Scratch memory;
    };
    thread_local std::array<Sized, kSizes> all;  // the last used first
    const auto place = std::find_if(all.begin(), all.end() - 1, [&](const Sized& each) { return each.bytes == bytes; });
    if (kSizes > 1 && place->bytes != bytes) *place = Sized();
    place->bytes = bytes;
    std::rotate(all.begin(), place, place + 1);
    size_t sum = 0;
    for (Sized& each : all)
      if ((sum += each.bytes) > kKept) each = Sized();
    return all.front().memory;
  }

  Scratch own_;
  T* data_;
};

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
  Correlation<T> correlation(bool up, const T* x, T* out) const {
    Correlation<T> a = {};
    a.up = up;
    a.images = images, a.height = height, a.width = width;
    a.channels = up ? small_channels : big_channels, a.out_channels = up ? big_channels : small_channels;
    a.x = x;
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
inline bool is_tiled(const Layer& layer) {
  constexpr int64_t kLeastChannels = 8, kLeastSide = 3;
  return std::min(layer.small_channels, layer.big_channels) >= kLeastChannels &&
         std::min(layer.height, layer.width) >= kLeastSide;
}

inline bool has_blocks(const Layer& layer) {
  constexpr int64_t kChannels = 32;  // of which they take multiples
  return has_amx() && layer.small_channels % kChannels == 0 && layer.big_channels % kChannels == 0;
}

// Calls f with a number of the type that pictures are in.
template <class F>
void dispatch(const Layer& layer, ScalarType type, const F& f) {
  if (type == ScalarType::Double) return f(double{});
  if (type == ScalarType::BFloat16 && (has_blocks(layer) || !is_tiled(layer))) return f(BFloat16{});
  f(float{});
}

template <class T>
Kernels<T> kernels_of(const Layer& layer) {
  const bool tiled = is_tiled(layer);
  if constexpr (std::is_same_v<T, BFloat16>) {
#ifdef PYGEN_AMX
    if (has_blocks(layer)) return {amx::kBlocks, amx::kBlocksGradient, row_kernels<T>()};
#endif
    return {PYGEN_BEST(kDirectBFloat16), PYGEN_BEST(kDirectGradientBFloat16), row_kernels<T>()};
  } else if constexpr (std::is_same_v<T, float>) {
    return {tiled ? PYGEN_BEST(kTiledFloat) : PYGEN_BEST(kDirectFloat),
            tiled ? PYGEN_BEST(kTiledGradientFloat) : PYGEN_BEST(kDirectGradientFloat), row_kernels<T>()};
  } else {
    return {tiled ? PYGEN_BEST(kTiledDouble) : PYGEN_BEST(kDirectDouble),
            tiled ? PYGEN_BEST(kTiledGradientDouble) : PYGEN_BEST(kDirectGradientDouble), row_kernels<T>()};
  }
}

template <class T>
void correlate(const CorrelationKernels<T>& kernels, Correlation<T>& a, const Weight<const T>& weight) {
  const Between<T, Use::kPacked> packed(kernels.packed_size(a));
  T* to = packed.data();
  over_items(kernels.pack_items(a), [&](int64_t item) { kernels.pack(a, weight, item, to); });
  a.packed = to;
  over_items(kernels.items(a), [&](int64_t item) { kernels.run(a, item, scratch<T>(kernels.scratch_size(a))); });
}

// By parts of the batch, so that threads stay with their own pictures, if these are much more than the sums of parts.
template <class T>
void weight_gradient(const WeightGradientKernels<T>& kernels, WeightGradient<T> a) {
  const int64_t big = 4 * a.height * a.width * a.big_channels, small = a.height * a.width * a.small_channels,
                weights = 16 * a.small_channels * a.big_channels, images = a.images;
  a.parts = std::max<int64_t>(1, std::min({kernels.parts, images, images * (big + small) / (4 * weights)}));
  const Between<T, Use::kPacked> packed(kernels.pack ? kernels.packed_size(a) : 0);
  if (kernels.pack) over_items(kernels.pack_items(a), [&](int64_t item) { kernels.pack(a, item, packed.data()); });
  a.packed = packed.data();
  const Between<Number<T>, Use::kSums> memory((a.parts - 1) * weights);
  Number<T>*sums = a.out.data, *more = memory.data();
  std::vector<WeightGradient<T>> parts(a.parts, a);
  for (int64_t i = 0; i < a.parts; ++i) {
    const int64_t begin = images * i / a.parts;
    parts[i].images = images * (i + 1) / a.parts - begin;
    parts[i].big += begin * big, parts[i].small += begin * small;
    if (i > 0) parts[i].out.data = more + (i - 1) * weights;
  }
  const int64_t items = kernels.items(a);
  over_items(a.parts * items, [&](int64_t item) {
    kernels.run(parts[item / items], item % items, scratch<T>(kernels.scratch_size(a)));
  });
  constexpr int64_t kNumbers = 1 << 14;  // that a thread is worth
  if (a.parts > 1)
    torch::stable::parallel_for(0, weights, kNumbers, [&](int64_t begin, int64_t end) {
      for (int64_t part = 0; part < a.parts - 1; ++part)
        for (int64_t i = begin; i < end; ++i) sums[i] += more[part * weights + i];
    });
}

}  // namespace pygen
