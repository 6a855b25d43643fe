// Up and down as one matrix product, for pictures too small or channels too few for tiles. CMake compiles this file
// once per instruction set, PYGEN_ISA naming the namespace. Sums run in an order that depends on the sizes alone, never
// on the threads.
#include <algorithm>

#include "activation.h"
#include "conv.h"
#include "tile.h"

namespace pygen::PYGEN_ISA {
namespace {

constexpr int kTaps = 16;

// Down multiplies patches [positions, 16 channels] by [16 channels, out_channels]; up multiplies pixels
// [positions, channels] by [channels, 16 out_channels] and adds what meets in one place.
template <class T>
struct Shape {
  int64_t depth;  // of the product, in whole vectors
  int64_t width;  // of the product, in numbers
  int64_t panels;
  int64_t rows;    // of the small picture an item writes
  int64_t strips;  // of a picture

  explicit Shape(const Correlation<T>& a)
      : depth(up_to(a.channels * (a.up ? 1 : kTaps), kLanes<T>)),
        width(a.out_channels * (a.up ? kTaps : 1)),
        panels(over(width, kColumns<T>)) {
    constexpr int64_t kCached = 256 << 10;  // bytes of what goes into the product and comes out of it
    const int64_t row = a.width * (depth + panels * kColumns<T>)*static_cast<int64_t>(sizeof(T));
    const int64_t fitting = std::clamp<int64_t>(kCached / row - (a.up ? 2 : 0), 1, a.height);
    strips = over(a.height, fitting);
    rows = over(a.height, strips);
    strips = over(a.height, rows);
  }
  // Up takes a row above and one below, too.
  int64_t positions(const Correlation<T>& a) const { return (rows + (a.up ? 2 : 0)) * a.width; }
};

template <class T>
int64_t packed_size(const Correlation<T>& a) {
  const Shape<T> shape(a);
  return shape.panels * shape.depth * kColumns<T>;
}

template <class T>
int64_t pack_items(const Correlation<T>& a) {
  return Shape<T>(a).panels;
}

// packed [panels, depth, columns]: rows or columns by tap, then by channel.
template <class T>
void pack(const Correlation<T>& a, const Weight<const T>& weight, int64_t panel, T* packed) {
  const Shape<T> shape(a);
  T* to = packed + panel * shape.depth * kColumns<T>;
  const int64_t in = a.up ? weight.small : weight.big, out = a.up ? weight.big : weight.small;
  for (int64_t k = 0; k < shape.depth; ++k)
    for (int64_t j = panel * kColumns<T>; j < (panel + 1) * kColumns<T>; ++j) {
      const bool inside = k < a.channels * (a.up ? 1 : kTaps) && j < shape.width;
      const int64_t tap = a.up ? j / a.out_channels : k / a.channels, channel = a.up ? k : k % a.channels,
                    out_channel = a.up ? j % a.out_channels : j;
      *to++ = inside ? weight.data[channel * in + out_channel * out + tap / 4 * weight.row + tap % 4 * weight.column]
                     : T(0);
    }
}

// A row of the left matrix, scattered over blocks [depth / lanes, rows, lanes].
template <class T>
struct Scatter {
  T* to;
  int64_t at = 0;

  void add(const T* from, int64_t n) {
    for (int64_t i = 0; i < n; ++i, ++at)
      to[at / kLanes<T> * kRows * kLanes<T> + at % kLanes<T>] = from ? from[i] : T(0);
  }
};

// Positions of `rows` rows of the small picture from `top` on; outside of the picture all is 0.
template <class T>
void gather(const Correlation<T>& a, const Shape<T>& shape, const T* picture, int64_t top, int64_t rows, T* left) {
  for (int64_t i = 0; i < rows * a.width; ++i) {
    const int64_t y = top + i / a.width, x = i % a.width;
    Scatter<T> row = {left + i / kRows * shape.depth * kRows + i % kRows * kLanes<T>};
    if (a.up) {
      const T* pixel = picture + (y * a.width + x) * a.channels;
      row.add(y >= 0 && y < a.height ? pixel : nullptr, a.channels);
    } else {
      const int64_t begin = std::max<int64_t>(2 * x - 1, 0), end = std::min(2 * x + 3, 2 * a.width);
      for (int64_t v = 2 * y - 1; v < 2 * y + 3; ++v) {
        const bool inside = v >= 0 && v < 2 * a.height;
        row.add(nullptr, (begin - (2 * x - 1)) * a.channels);
        row.add(inside ? picture + (v * 2 * a.width + begin) * a.channels : nullptr, (end - begin) * a.channels);
        row.add(nullptr, (2 * x + 3 - end) * a.channels);
      }
    }
    row.add(nullptr, shape.depth - row.at);
  }
}

// The channels of a pixel of `up`: its four neighbours by their taps, from products [positions, panels * columns] whose
// first row is `top`.
template <class T>
void meet(const Correlation<T>& a, const T* products, int64_t stride, int64_t top, int64_t y, int64_t x, T* to) {
  const T* terms[4];
  int n = 0;
  for (int64_t i = (y + 1) / 2 - 1; i <= (y + 1) / 2; ++i)
    for (int64_t j = (x + 1) / 2 - 1; j <= (x + 1) / 2; ++j)
      if (j >= 0 && j < a.width)
        terms[n++] =
            products + ((i - top) * a.width + j) * stride + ((y + 1 - 2 * i) * 4 + x + 1 - 2 * j) * a.out_channels;
  for (int64_t m = 0; m < a.out_channels; ++m)
    to[m] = n == 4 ? (terms[0][m] + terms[1][m]) + (terms[2][m] + terms[3][m]) : n == 2 ? terms[0][m] + terms[1][m] : 0;
}

// Bias, activation and moments of rows [n, out_channels].
template <class T>
void finish(const Correlation<T>& a, int64_t n, T* rows, double* moments) {
  using Lanes = typename Vector<T>::Lanes;
  const int64_t channels = a.out_channels;
  if (a.bias)
    for (int64_t i = 0; i < n; ++i)
      for (int64_t m = 0; m < channels; ++m) rows[i * channels + m] += a.bias[m];
  if (a.activation != kNone)
    for (int64_t i = 0; i < n * channels; i += kLanes<T>) {
      Lanes lanes;
      load(rows + i, n * channels - i, lanes);
      activate<T>(a.activation, a.slope, &lanes, 1);
      store<T>(lanes, n * channels - i, rows + i);
    }
  if (!moments) return;
  moments[0] = static_cast<double>(n);
  for (int64_t m = 0; m < channels; ++m) {
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < n; ++i) {
      const double difference = rows[i * channels + m] - rows[m];
      sum += difference;
      squares += difference * difference;
    }
    moments[1 + m] = rows[m] + sum / n;
    moments[1 + channels + m] = std::max(squares - sum * sum / n, 0.0);
  }
}

template <class T>
int64_t items(const Correlation<T>& a) {
  return a.images * Shape<T>(a).strips;
}

template <class T>
int64_t scratch_size(const Correlation<T>& a) {
  const Shape<T> shape(a);
  return up_to(shape.positions(a), kRows) * (shape.depth + shape.panels * kColumns<T>)+kRows * kColumns<T>;
}

template <class T>
void run(const Correlation<T>& a, int64_t item, T* left) {
  const Shape<T> shape(a);
  const int64_t image = item / shape.strips, top = item % shape.strips * shape.rows;
  const int64_t rows = std::min(shape.rows, a.height - top), halo = a.up ? 1 : 0;
  const int64_t positions = (rows + 2 * halo) * a.width, groups = over(positions, kRows);
  const int64_t in_image = a.height * a.width * (a.up ? 1 : 4) * a.channels;
  gather(a, shape, a.x + image * in_image, top - halo, rows + 2 * halo, left);
  const int64_t width = a.up ? 2 * a.width : a.width, scale = a.up ? 2 : 1;
  T *tile = left + groups * kRows * shape.depth, *products = tile + kRows * kColumns<T>;
  T* out = a.out + (image * scale * a.height + scale * top) * width * a.out_channels;
  const int64_t stride = a.up ? shape.panels * kColumns<T> : a.out_channels;
  for (int64_t panel = 0; panel < shape.panels; ++panel) {
    const int64_t columns = std::min<int64_t>(kColumns<T>, stride - panel * kColumns<T>);
    for (int64_t group = 0; group < groups; ++group) {
      multiply<T, Left::kBlocks>(left + group * kRows * shape.depth, a.packed + panel * shape.depth * kColumns<T>,
                                 shape.depth, tile);
      T* to = (a.up ? products : out) + group * kRows * stride + panel * kColumns<T>;
      for (int64_t i = 0; i < std::min<int64_t>(kRows, positions - group * kRows); ++i)
        std::copy_n(tile + i * kColumns<T>, columns, to + i * stride);
    }
  }
  if (a.up)
    for (int64_t y = 0; y < 2 * rows; ++y)
      for (int64_t x = 0; x < width; ++x)
        meet(a, products, stride, top - 1, 2 * top + y, x, out + (y * width + x) * a.out_channels);
  finish(a, scale * rows * width, out, a.moments ? a.moments + item * (1 + 2 * a.out_channels) : nullptr);
}

template <class T>
constexpr CorrelationKernels<T> kDirect = {packed_size<T>, pack_items<T>, pack<T>, items<T>, scratch_size<T>, run<T>};

}  // namespace

const CorrelationKernels<float> kDirectFloat = kDirect<float>;
const CorrelationKernels<double> kDirectDouble = kDirect<double>;

}  // namespace pygen::PYGEN_ISA
