// The weight's gradient of up and down in bfloat16 by a matrix unit: products [small channels, big channels] are summed
// over images, kSide at a time, and over pixels. Channels come in multiples of kSide. Sums run in an order that depends
// on the sizes alone, never on the threads.
#include "matrix.h"

namespace pygen::PYGEN_ISA {
namespace {

using T = BFloat16;
constexpr int64_t kTaps = 16, kSteps = 256;  // taken together
constexpr int64_t kPart = kSide * kSide;     // numbers of a left or right part

// An item takes kSide small and big channels, and all taps.
struct Shape {
  int64_t blocks, pixels;            // of images; of the small picture
  int64_t small_panels, big_panels;  // of channels

  explicit Shape(const WeightGradient<T>& a)
      : blocks(over(a.images, kSide)),
        pixels(a.height * a.width),
        small_panels(over(a.small_channels, kSide)),
        big_panels(over(a.big_channels, kSide)) {}
  // Of what is packed: left parts [small_panels, blocks, pixels], then right parts [big_panels, blocks, pixels].
  int64_t left(int64_t panel, int64_t block, int64_t pixel) const {
    return ((panel * blocks + block) * pixels + pixel) * kPart;
  }
  int64_t right(int64_t panel, int64_t block, int64_t pixel) const {
    return left(small_panels, 0, 0) + ((panel * blocks + block) * 4 * pixels + pixel) * kPart;
  }
};

int64_t packed_size(const WeightGradient<T>& a) {
  const Shape shape(a);
  return shape.right(shape.big_panels, 0, 0);
}

// Rows of pixels of the small picture, then of the big one.
int64_t pack_items(const WeightGradient<T>& a) { return Shape(a).blocks * 3 * a.height; }

// A part from pixels of `count` images, `stride` apart.
void pack_part(const T* from, int64_t stride, int64_t count, bool is_left, T* to) {
  static constexpr T kZeros[kHalf] = {};
  for (int64_t half = 0; half < kSide; half += kHalf, from += kHalf, to += kHalf * kSide) {
    alignas(64) T pairs[kHalf][kHalf][2];  // of images
    for (int64_t i = 0; i < kHalf; ++i)
      pair_up(2 * i < count ? from + 2 * i * stride : kZeros, 2 * i + 1 < count ? from + (2 * i + 1) * stride : kZeros,
              pairs[i][0]);
    if (is_left)
      transpose_pairs(pairs[0][0], to);
    else
      std::memcpy(to, pairs, sizeof pairs);
  }
}

void pack(const WeightGradient<T>& a, int64_t item, T* packed) {
  const Shape shape(a);
  const int64_t block = item / (3 * a.height), row = item % (3 * a.height);
  const bool is_left = row < a.height;
  const int64_t width = is_left ? a.width : 2 * a.width, channels = is_left ? a.small_channels : a.big_channels,
                first = (is_left ? row : row - a.height) * width, stride = (is_left ? 1 : 4) * shape.pixels * channels,
                count = least(kSide, a.images - block * kSide);
  const T* from = (is_left ? a.small : a.big) + block * kSide * stride;
  for (int64_t pixel = first; pixel < first + width; ++pixel)
    for (int64_t panel = 0; panel < channels / kSide; ++panel)
      pack_part(from + pixel * channels + panel * kSide, stride, count, is_left,
                packed + (is_left ? shape.left(panel, block, pixel) : shape.right(panel, block, pixel)));
}

int64_t items(const WeightGradient<T>& a) { return Shape(a).small_panels * Shape(a).big_panels; }

int64_t scratch_size(const WeightGradient<T>&) {
  return (kTaps * kPart * sizeof(float) + kSteps * sizeof(Step)) / sizeof(T);
}

// The product of a tap.
void sum(const WeightGradient<T>& a, const Shape& shape, int64_t small, int64_t big, int64_t tap,
         const Products& multiply, Step* steps, float* product) {
  int64_t n = 0;
  bool adds = false;
  const auto flush = [&] {
    multiply.run(steps, n, adds, product);
    n = 0, adds = true;
  };
  for (int64_t block = 0; block < shape.blocks; ++block)
    for (int64_t y = 0; y < a.height; ++y) {
      const int64_t row = 2 * y - 1 + tap / 4;
      if (row < 0 || row >= 2 * a.height) continue;
      for (int64_t x = 0; x < a.width; ++x) {
        const int64_t column = 2 * x - 1 + tap % 4;
        if (column < 0 || column >= 2 * a.width) continue;
        if (n == kSteps) flush();
        steps[n++] = {a.packed + shape.left(small, block, y * a.width + x),
                      a.packed + shape.right(big, block, row * 2 * a.width + column)};
      }
    }
  flush();
}

// The gradients [taps, small, big] of kSide small and big channels.
void put(const float* products, const Weight<float>& to) {
  constexpr int64_t kWide = kLanes<float>;
  for (int64_t s = 0; s < kSide; ++s)
    for (int64_t b = 0; b < kSide; b += kWide) {
      const float* from = products + s * kSide + b;
      float* place = to.data + s * to.small + b * to.big;
      if (to.row == 4 && to.column == 1) {
        for (int64_t i = 0; i < kTaps; i += kWide) transpose(from + i * kPart, kPart, place + i, to.big);
      } else {
        for (int64_t i = 0; i < kTaps; ++i)
          for (int64_t j = 0; j < kWide; ++j)
            place[j * to.big + i / 4 * to.row + i % 4 * to.column] = from[i * kPart + j];
      }
    }
}

void run(const WeightGradient<T>& a, int64_t item, T* scratch) {
  const Shape shape(a);
  const int64_t small = item / shape.big_panels, big = item % shape.big_panels;
  float* products = reinterpret_cast<float*>(scratch);
  Step* steps = reinterpret_cast<Step*>(products + kTaps * kPart);
  const Products multiply(kSide, kSide);
  for (int64_t tap = 0; tap < kTaps; ++tap) sum(a, shape, small, big, tap, multiply, steps, products + tap * kPart);
  put(products, {a.out.data + small * kSide * a.out.small + big * kSide * a.out.big, a.out.small, a.out.big, a.out.row,
                 a.out.column});
}

}  // namespace

// conv.h declares it for one instruction set; the tests have it for all.
extern const WeightGradientKernels<BFloat16> kBlocksGradient;
const WeightGradientKernels<BFloat16> kBlocksGradient = {1, items, scratch_size, run, packed_size, pack_items, pack};

}  // namespace pygen::PYGEN_ISA
