// The weight's gradient of up and down as one matrix product, for pictures too small or channels too few for tiles.
// CMake compiles this file once per instruction set, PYGEN_ISA naming the namespace. Sums run in an order that depends
// on the sizes alone, never on the threads.
#include "bfloat16.h"
#include "conv.h"
#include "tile.h"

namespace pygen::PYGEN_ISA {
namespace {

constexpr int kTaps = 16;

// Over positions, pixels of the small picture, the gradient sums outer products of patches and small channels. An item
// does so for a panel of these, with a chunk of positions after the other.
template <class T>
int64_t patch_size(const WeightGradient<T>& a) {
  return up_to(kTaps * a.big_channels, kHigh<Number<T>>);
}

// Patches made together: a vector cannot be loaded from what was stored in parts just before.
constexpr int64_t kPatches = 8;

template <class T>
int64_t items(const WeightGradient<T>& a) {
  return over(a.small_channels, kColumns<T>);
}

template <class T>
int64_t scratch_size(const WeightGradient<T>& a) {
  return (patch_size(a) * (kPatches + kChunk + kColumns<T>)+kChunk * kColumns<T>)*kUnits<T>;
}

// Patches of some positions, left [patch / high, count, high].
template <class T>
void gather(const WeightGradient<T>& a, int64_t first, int64_t count, T* patches, Number<T>* left) {
  const int64_t size = patch_size(a), picture = 4 * a.height * a.width * a.big_channels;
  constexpr int64_t kRow = kHigh<Number<T>>;
  const bool is_short = kStoresNumbers<T> && size == kRow;  // then left is as patches are
  int64_t x = first % a.width, y = first / a.width % a.height;
  const T* from = a.big + first / (a.height * a.width) * picture;
  for (int64_t begin = 0; begin < count; begin += kPatches) {
    const int64_t n = least(kPatches, count - begin);
    for (int64_t i = 0; i < n; ++i) {
      copy_patch(from, a.height, a.width, a.big_channels, y, x,
                 is_short ? reinterpret_cast<T*>(left) + (begin + i) * size : patches + i * size);
      if (++x < a.width) continue;
      x = 0;
      if (++y < a.height) continue;
      y = 0, from += picture;
    }
    for (int64_t k = 0; !is_short && k < size; k += kRow)
      for (int64_t i = 0; i < n; ++i)
        for (int64_t j = 0; j < kRow; j += kLanes<T>) {
          typename Vector<T>::Lanes lanes;
          Vector<T>::load(patches + i * size + k + j, lanes);
          Vector<Number<T>>::store(lanes, left + k * count + (begin + i) * kRow + j);
        }
  }
}

template <class T>
void run(const WeightGradient<T>& a, int64_t item, T* scratch) {
  using N = Number<T>;
  const int64_t size = patch_size(a), positions = a.images * a.height * a.width, channel = item * kColumns<T>,
                channels = least(kColumns<T>, a.small_channels - channel);
  N *left = reinterpret_cast<N*>(scratch), *products = left + kChunk * size, *padded = products + size * kColumns<T>;
  T* patches = reinterpret_cast<T*>(padded + kChunk * kColumns<T>);
  std::memset(patches, 0, kPatches * size * sizeof(T));
  for (int64_t first = 0; first < positions; first += kChunk) {
    const int64_t count = least(kChunk, positions - first);
    gather(a, first, count, patches, left);
    const T* pixels = a.small + first * a.small_channels + channel;
    const bool is_right = kStoresNumbers<T> && channels == kColumns<T>;
    for (int64_t i = 0; !is_right && i < count; ++i)
      for (int64_t c = 0; c < kColumns<T>; c += kLanes<T>) {
        typename Vector<T>::Lanes lanes;
        load(pixels + i * a.small_channels + c, channels - c, lanes);
        Vector<N>::store(lanes, padded + i * kColumns<T> + c);
      }
    const N* right = is_right ? reinterpret_cast<const N*>(pixels) : padded;
    for (int64_t row = 0; row < kTaps * a.big_channels; row += kRows)
      multiply_chunk<N, Left::kColumns>(left + row / kHigh<N> * kHigh<N> * count + row % kHigh<N>, right, count,
                                        first > 0, products + row * kColumns<T>, kColumns<T>,
                                        is_right ? a.small_channels : kColumns<T>);
  }
  for (int64_t row = 0; row < kTaps * a.big_channels; ++row, products += kColumns<T>) {
    const int64_t i = row / a.big_channels;
    N* to = a.out.data + row % a.big_channels * a.out.big + i / 4 * a.out.row + i % 4 * a.out.column;
    for (int64_t c = 0; c < channels; ++c) to[(channel + c) * a.out.small] = products[c];
  }
}

template <class T>
constexpr WeightGradientKernels<T> kDirectGradient = {8, items<T>, scratch_size<T>, run<T>, nullptr, nullptr, nullptr};

}  // namespace

const WeightGradientKernels<float> kDirectGradientFloat = kDirectGradient<float>;
const WeightGradientKernels<double> kDirectGradientDouble = kDirectGradient<double>;
const WeightGradientKernels<BFloat16> kDirectGradientBFloat16 = kDirectGradient<BFloat16>;

}  // namespace pygen::PYGEN_ISA
