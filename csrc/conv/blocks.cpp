// Up and down of pictures in bfloat16 by a matrix unit: the rows of a product are images, at one pixel. So there are no
// borders and no copies: of a pixel, the taps that meet the picture are summed. Channels come in multiples of kSide.
// Sums run in an order that depends on the sizes alone, never on the threads.
#include "activation.h"
#include "matrix.h"
#include "moments.h"

namespace pygen::PYGEN_ISA {
namespace {

using T = BFloat16;
using Lanes = Vector<T>::Lanes;
constexpr int64_t kVectors = kSide / kLanes<T>, kTaps = 16;

// An item takes a block of images, and of the small picture a row of pixels.
struct Shape {
  int64_t images, blocks;  // of a part of the batch
  int64_t chunks;          // of input channels
  int64_t panels;          // of output channels

  explicit Shape(const Correlation<T>& a)
      : images(a.images / a.parts),
        blocks(over(images, kSide)),
        chunks(over(a.channels, kSide)),
        panels(over(a.out_channels, kSide)) {}
  // Of what is packed: [panels, taps, chunks], right parts.
  int64_t packed(int64_t panel, int64_t tap, int64_t chunk) const {
    return ((panel * kTaps + tap) * chunks + chunk) * kSide * kSide;
  }
};

int64_t packed_size(const Correlation<T>& a) {
  const Shape shape(a);
  return shape.packed(shape.panels, 0, 0);
}

int64_t pack_items(const Correlation<T>& a) {
  const Shape shape(a);
  return shape.panels * shape.chunks;
}

void pack(const Correlation<T>& a, const Weight<const T>& weight, int64_t item, T* packed) {
  const Shape shape(a);
  const int64_t panel = item / shape.chunks, chunk = item % shape.chunks;
  const int64_t in = a.up ? weight.small : weight.big, out = a.up ? weight.big : weight.small;
  for (int64_t half = 0; half < kSide; half += kHalf)
    for (int64_t pair = 0; pair < kHalf; ++pair) {
      const T* from = weight.data + (chunk * kSide + 2 * pair) * in + (panel * kSide + half) * out;
      alignas(64) T by_column[kHalf][kTaps][2], by_tap[kTaps][kHalf][2];
      if (weight.row == 4 && weight.column == 1) {
        for (int64_t j = 0; j < kHalf; ++j) pair_up(from + j * out, from + j * out + in, by_column[j][0]);
        transpose_pairs(by_column[0][0], by_tap[0][0]);
      } else {
        for (int64_t i = 0; i < kTaps; ++i)
          for (int64_t j = 0; j < kHalf; ++j)
            for (int64_t k = 0; k < 2; ++k)
              by_tap[i][j][k] = from[k * in + j * out + i / 4 * weight.row + i % 4 * weight.column];
      }
      for (int64_t i = 0; i < kTaps; ++i)
        std::memcpy(packed + shape.packed(panel, i, chunk) + (half + pair) * kSide, by_tap[i], sizeof by_tap[i]);
    }
}

int64_t items(const Correlation<T>& a) { return a.parts * Shape(a).blocks * a.height; }

// Of what products need.
int64_t scratch_size(const Correlation<T>& a) {
  return (kSide * kSide * sizeof(float) + kTaps * Shape(a).chunks * sizeof(Step)) / sizeof(T);
}

// A pixel's results of `rows` images, from their products; moments [kVectors], or null.
void finish(const Correlation<T>& a, const float* products, int64_t rows, const float* bias, int64_t stride, T* to,
            Moments<float>* moments) {
  for (int64_t row = 0; row < rows; ++row, products += kSide, to += stride) {
    Lanes values[kVectors];
    for (int64_t v = 0; v < kVectors; ++v) {
      Lanes summand = {};
      if (bias) load(bias + v * kLanes<T>, kLanes<T>, summand);
      load(products + v * kLanes<T>, kLanes<T>, values[v]);
      values[v] += summand;
    }
    activate<float>(a.activation, a.slope, values, kVectors);
    for (int64_t v = 0; v < kVectors; ++v) Vector<T>::store(values[v], to + v * kLanes<T>);
    for (int64_t v = 0; moments && v < kVectors; ++v) moments[v].add(values[v]);
  }
}

// In one dimension: a tap, and which of `size` pixels it takes.
struct Tap {
  int64_t tap, from;
};

// Those that a result's pixel is the sum of.
int taps_of(bool up, int64_t to, int64_t size, Tap (&taps)[4]) {
  int n = 0;
  for (int64_t tap = up ? (to + 1) % 2 : 0; tap < 4; tap += up ? 2 : 1) {
    const int64_t from = up ? (to + 1 - tap) / 2 : 2 * to - 1 + tap;
    if (from >= 0 && from < size) taps[n++] = {tap, from};
  }
  return n;
}

void run(const Correlation<T>& a, int64_t item, T* scratch) {
  const Shape shape(a);
  const int64_t block = item / a.height, y = item % a.height, begin = block % shape.blocks * kSide,
                image = block / shape.blocks * shape.images + begin, images = least(kSide, shape.images - begin);
  const int64_t scale = a.up ? 2 : 1, height = 2 * a.height / scale, width = 2 * a.width / scale;  // of x
  const int64_t of_x = height * width * a.channels, of_out = scale * scale * a.height * a.width * a.out_channels;
  const T* x = a.x + image * of_x;
  T* out = a.out + image * of_out;
  float* products = reinterpret_cast<float*>(scratch);
  Step* steps = reinterpret_cast<Step*>(products + kSide * kSide);
  const Products multiply(images, of_x);
  for (int64_t panel = 0; panel < shape.panels; ++panel) {
    const float* bias = a.bias ? a.bias + panel * kSide : nullptr;
    Moments<float> moments[kVectors];
    // All pixels of one parity first, as they take the same weights.
    for (int64_t target = 0; target < scale * scale; ++target)
      for (int64_t place = 0; place < a.width; ++place) {
        const int64_t row = scale * y + target / 2, column = scale * place + target % 2;
        Tap down[4], right[4];
        const int n_down = taps_of(a.up, row, height, down), n_right = taps_of(a.up, column, width, right);
        int64_t n = 0;
        for (int i = 0; i < n_down; ++i)
          for (int j = 0; j < n_right; ++j)
            for (int64_t chunk = 0; chunk < shape.chunks; ++chunk)
              steps[n++] = {x + (down[i].from * width + right[j].from) * a.channels + chunk * kSide,
                            a.packed + shape.packed(panel, 4 * down[i].tap + right[j].tap, chunk)};
        multiply.run(steps, n, false, products);
        finish(a, products, images, bias, of_out,
               out + (row * scale * a.width + column) * a.out_channels + panel * kSide, a.moments ? moments : nullptr);
      }
    for (int64_t v = 0; a.moments && v < kVectors; ++v)
      moments[v].store(panel * kSide + v * kLanes<T>, kLanes<T>, a.out_channels,
                       a.moments + item * (1 + 2 * a.out_channels));
  }
}

}  // namespace

// conv.h declares it for one instruction set; the tests have it for all.
extern const CorrelationKernels<BFloat16> kBlocks;
const CorrelationKernels<BFloat16> kBlocks = {packed_size, pack_items, pack, items, items, scratch_size, run};

}  // namespace pygen::PYGEN_ISA
