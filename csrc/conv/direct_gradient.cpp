// The weight's gradient of up and down as one matrix product, for pictures too small or channels too few for tiles.
// CMake compiles this file once per instruction set, PYGEN_ISA naming the namespace. Sums run in an order that depends
// on the sizes alone, never on the threads.
#include "conv.h"
#include "tile.h"

namespace pygen::PYGEN_ISA {
namespace {

constexpr int kTaps = 16;

// Over positions, pixels of the small picture, the gradient sums outer products of patches and small channels.
template <class T>
struct Shape {
  int64_t big, small;      // numbers of a patch and of a pixel, padded
  int64_t groups, panels;  // of the result

  explicit Shape(const WeightGradient<T>& a)
      : big(up_to(kTaps * a.big_channels, kHigh<T>)),
        small(up_to(a.small_channels, kColumns<T>)),
        groups(over(kTaps * a.big_channels, kRows)),
        panels(small / kColumns<T>) {}
};

template <class T>
int64_t positions(const WeightGradient<T>& a) {
  return a.images * a.height * a.width;
}

// Positions gathered at a time: what fits into a second-level cache.
template <class T>
int64_t chunk(const WeightGradient<T>& a) {
  constexpr int64_t kCached = 1 << 20;
  const Shape<T> shape(a);
  const int64_t fitting = kCached / static_cast<int64_t>(sizeof(T)) / (shape.big + shape.small);
  return least(fitting > kChunk ? fitting / kChunk * kChunk : kChunk, positions(a));
}

template <class T>
int64_t gathered_size(const WeightGradient<T>& a) {
  const Shape<T> shape(a);
  return chunk(a) * (shape.big + shape.small);
}

template <class T>
int64_t scratch_size(const WeightGradient<T>& a) {
  return Shape<T>(a).big + kRows * kColumns<T>;
}

// gathered: left [big / high, count, high], then right [panels, count, columns].
template <class T>
void gather(const WeightGradient<T>& a, int64_t first, int64_t count, int64_t begin, int64_t end, T* patch,
            T* gathered) {
  const Shape<T> shape(a);
  std::memset(patch, 0, shape.big * sizeof(T));
  for (int64_t i = begin; i < end; ++i) {
    const int64_t pixel = first + i, image = pixel / (a.height * a.width), y = pixel / a.width % a.height,
                  x = pixel % a.width;
    const T* big = a.big + image * 4 * a.height * a.width * a.big_channels;
    T *left = gathered + i * kHigh<T>, *right = gathered + count * shape.big + i * kColumns<T>;
    copy_patch(big, a.height, a.width, a.big_channels, y, x, patch);
    for (int64_t k = 0; k < shape.big; k += kHigh<T>) std::memcpy(left + k * count, patch + k, kHigh<T> * sizeof(T));
    const T* small = a.small + pixel * a.small_channels;
    for (int64_t channel = 0; channel < shape.small; channel += kLanes<T>) {
      typename Vector<T>::Lanes lanes;
      load(small + channel, a.small_channels - channel, lanes);
      Vector<T>::store(lanes, right + channel / kColumns<T> * count * kColumns<T> + channel % kColumns<T>);
    }
  }
}

template <class T>
int64_t items(const WeightGradient<T>& a) {
  const Shape<T> shape(a);
  return shape.panels * shape.groups;
}

template <class T>
void multiply_item(const WeightGradient<T>& a, int64_t first, int64_t count, int64_t item, const T* gathered,
                   T* products) {
  const Shape<T> shape(a);
  const int64_t group = item % shape.groups, panel = item / shape.groups, small = panel * kColumns<T>;
  multiply<T, Left::kColumns>(gathered + group * kRows / kHigh<T> * count * kHigh<T> + group * kRows % kHigh<T>,
                              gathered + count * shape.big + panel * count * kColumns<T>, count, products);
  for (int64_t r = 0; r < kRows && group * kRows + r < kTaps * a.big_channels; ++r, products += kColumns<T>) {
    const int64_t row = group * kRows + r, i = row / a.big_channels;
    T* to = a.out.data + row % a.big_channels * a.out.big + i / 4 * a.out.row + i % 4 * a.out.column;
    for (int64_t c = 0; c < kColumns<T> && small + c < a.small_channels; ++c) {
      T& value = to[(small + c) * a.out.small];
      value = first > 0 ? value + products[c] : products[c];
    }
  }
}

template <class T>
constexpr WeightGradientKernels<T> kDirectGradient = {positions<T>, chunk<T>, gathered_size<T>, scratch_size<T>,
                                                      gather<T>,    items<T>, multiply_item<T>};

}  // namespace

const WeightGradientKernels<float> kDirectGradientFloat = kDirectGradient<float>;
const WeightGradientKernels<double> kDirectGradientDouble = kDirectGradient<double>;

}  // namespace pygen::PYGEN_ISA
