// Up and down by tiles of 4x4 pixels of one parity. CMake compiles this file once per instruction set, PYGEN_ISA naming
// the namespace. Sums run in an order that depends on the sizes alone, never on the threads.
#include "activation.h"
#include "conv.h"
#include "transform.h"

namespace pygen::PYGEN_ISA {
namespace {

constexpr int kParities = 4;

// The matrices that are multiplied for each of the points: [tiles, depth] and [depth, out_channels].
template <class T>
struct Shape {
  int64_t vectors;  // of input channels
  int64_t sources;  // parities summed
  int64_t targets;  // parities written
  int64_t depth;    // sources * vectors * lanes
  int64_t panels;   // of output channels
  int64_t tile_rows, tile_columns;
  int64_t tiles;   // of a part of the batch
  int64_t block;   // tiles of an item
  int64_t blocks;  // of a part

  // From a product's matrix to the next: a line of the cache more than a power of 2, which would be in its way.
  int64_t right_stride() const { return depth * kColumns<T> + kLanes<T>; }
  int64_t left_stride(int64_t groups) const { return groups * kRows * depth + kLanes<T>; }
  int64_t product_stride(int64_t groups) const { return groups * kRows * kColumns<T> + kLanes<T>; }

  explicit Shape(const Correlation<T>& a)
      : vectors(over(a.channels, kLanes<T>)),
        sources(a.up ? 1 : kParities),
        targets(a.up ? kParities : 1),
        depth(sources * vectors * kLanes<T>),
        panels(over(a.out_channels, kColumns<T>)),
        tile_rows(over(a.height, kTile)),
        tile_columns(over(a.width, kTile)),
        tiles(a.images / a.parts * tile_rows * tile_columns) {
    // The inputs' products fit into a second-level cache, but weights are to be read for many tiles.
    constexpr int64_t kCached = 400 << 10, kLeast = 16, kMost = 96;
    const int64_t fitting = kCached / static_cast<int64_t>(kProducts * sizeof(T)) / depth;
    block = least(up_to(tiles, kRows), up_to((fitting < kLeast ? kLeast : least(fitting, kMost)), kRows));
    blocks = over(tiles, block);
  }
};

template <class T>
int64_t packed_size(const Correlation<T>& a) {
  const Shape<T> shape(a);
  return shape.targets * shape.panels * kProducts * shape.right_stride();
}

template <class T>
int64_t pack_items(const Correlation<T>& a) {
  const Shape<T> shape(a);
  return shape.panels * shape.vectors;
}

// packed [targets, panels, products, depth, columns], for a panel and a vector of input channels.
template <class T>
void pack(const Correlation<T>& a, const Weight<const T>& weight, int64_t item, T* packed) {
  using V = Vector<T>;
  const Shape<T> shape(a);
  const int64_t panel = item / shape.vectors, first = item % shape.vectors * kLanes<T>;
  const int64_t width = least(kColumns<T>, a.out_channels - panel * kColumns<T>);
  const int64_t in = a.up ? weight.small : weight.big, out = a.up ? weight.big : weight.small;
  T taps[16][kColumns<T>] = {};
  for (int64_t k = first; k < first + kLanes<T>; ++k) {
    if (k >= a.channels) {
      std::memset(taps, 0, sizeof taps);
    } else {
      const T* from = weight.data + k * in + panel * kColumns<T> * out;
      for (int64_t column = 0; column < width; ++column, from += out)
        for (int i = 0; i < 16; ++i) taps[i][column] = from[i / 4 * weight.row + i % 4 * weight.column];
    }
    for (int parity = 0; parity < kParities; ++parity) {
      const int y = parity / 2, x = parity % 2;
      const int64_t target = a.up ? parity : 0, row = (a.up ? 0 : parity * shape.vectors * kLanes<T>)+k;
      T* to = packed + (target * shape.panels + panel) * kProducts * shape.right_stride() + row * kColumns<T>;
      for (int v = 0; v < kWide; ++v) {
        typename V::Lanes taps_x[2][kPoints];
        for (int t = 0; t < 2; ++t) {
          typename V::Lanes left, right;
          const int tap_row = tap(a.up, y, t) * 4;
          V::load(taps[tap_row + tap(a.up, x, 0)] + v * V::kLanes, left);
          V::load(taps[tap_row + tap(a.up, x, 1)] + v * V::kLanes, right);
          taps_to_points<T>(left, right, taps_x[t]);
        }
        for (int j = 0; j < kPoints; ++j) {
          typename V::Lanes points[kPoints];
          taps_to_points<T>(taps_x[0][j], taps_x[1][j], points);
          for (int i = 0; i < kPoints; ++i)
            V::store(points[i], to + (i * kPoints + j) * shape.right_stride() + v * V::kLanes);
        }
      }
    }
  }
}

// The inputs of an item, left [products, groups of rows, depth / lanes, rows, lanes].
template <class T>
void transform(const Correlation<T>& a, const Shape<T>& shape, int64_t first, int64_t count, int parity, T* left) {
  const int64_t groups = over(count, kRows), in_image = shape.tile_rows * shape.tile_columns;
  const int64_t height = a.up ? a.height : 2 * a.height, width = a.up ? a.width : 2 * a.width;
  const int64_t stride = shape.left_stride(groups);
  for (int64_t source = 0; source < shape.sources; ++source) {
    const int64_t p = a.up ? parity : source, y = p / 2, x = p % 2;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t tile = first + i, image = tile / in_image, row = tile % in_image / shape.tile_columns * kTile,
                    column = tile % shape.tile_columns * kTile;
      const int64_t top = a.up ? row - 1 + y : 2 * row - y, begin = a.up ? column - 1 + x : 2 * column - x;
      const Window<T, kPoints> window(a.x + image * height * width * a.channels, height, width, a.channels, top, begin,
                                      a.up ? 1 : 2, left + kProducts * stride);
      T* to = left + i / kRows * shape.depth * kRows + (source * shape.vectors * kRows + i % kRows) * kLanes<T>;
      for (int64_t v = 0; v < shape.vectors; ++v, to += kRows * kLanes<T>) {
        typename Vector<T>::Lanes d[kProducts];
        if (const int64_t count = a.channels - v * kLanes<T>; count >= kLanes<T>)
          transform_inputs<true, T>(window, v * kLanes<T>, count, d);
        else
          transform_inputs<false, T>(window, v * kLanes<T>, count, d);
#pragma GCC unroll 25
        for (int point = 0; point < kProducts; ++point) Vector<T>::store(d[point], to + point * stride);
      }
    }
  }
}

// Sums of what a vector of channels has got, about its first pixel.
template <class T>
struct Moments {
  typename Vector<T>::Lanes shift, sum, squares;
  int64_t n = 0;

  void add(const typename Vector<T>::Lanes& value) {
    if (n++ == 0) {
      shift = value;
      sum = squares = typename Vector<T>::Lanes{};
    }
    const typename Vector<T>::Lanes difference = value - shift;
    sum += difference;
    squares += difference * difference;
  }
  void store(int64_t channel, int64_t count, int64_t channels, double* moments) const {
    moments[0] = static_cast<double>(n);
    for (int64_t i = 0; i < least(count, kLanes<T>); ++i) {
      const double part = sum[i];
      moments[1 + channel + i] = shift[i] + part / n;
      moments[1 + channels + channel + i] = squares[i] > part * part / n ? squares[i] - part * part / n : 0;
    }
  }
};

// Results of the tiles of an item and a vector of output channels from products [products, rows, columns].
template <class T>
void results(const Correlation<T>& a, const Shape<T>& shape, int64_t first, int64_t count, int parity,
             const T* products, int64_t channel, double* moments) {
  using Lanes = typename Vector<T>::Lanes;
  const int64_t stride = shape.product_stride(over(count, kRows)), in_image = shape.tile_rows * shape.tile_columns;
  const int64_t step = a.up ? 2 : 1, width = step * a.width, channels = a.out_channels - channel;
  const int64_t y = a.up ? parity / 2 : 0, x = a.up ? parity % 2 : 0;
  Moments<T> sums;
  Lanes bias = {};
  if (a.bias) load(a.bias + channel, channels, bias);
  for (int64_t i = 0; i < count; ++i, products += kColumns<T>) {
    Lanes rows[kPoints][kTile], values[kTile * kTile];
#pragma GCC unroll 5
    for (int j = 0; j < kPoints; ++j) {
      Lanes p[kPoints];
#pragma GCC unroll 5
      for (int k = 0; k < kPoints; ++k) Vector<T>::load(products + (k * kPoints + j) * stride, p[k]);
      results_of_points<T>(p[0], p[1], p[2], p[3], p[4], rows[j]);
    }
#pragma GCC unroll 4
    for (int r = 0; r < kTile; ++r) {
      Lanes row[kTile];
      results_of_points<T>(rows[0][r], rows[1][r], rows[2][r], rows[3][r], rows[4][r], row);
      for (int s = 0; s < kTile; ++s) values[r * kTile + s] = row[s] + bias;
    }
    activate<T>(a.activation, a.slope, values, kTile * kTile);
    const int64_t tile = first + i, image = tile / in_image, row = tile % in_image / shape.tile_columns * kTile,
                  column = tile % shape.tile_columns * kTile;
    T* to = a.out + (((image * a.height + row) * step + y) * width + column * step + x) * a.out_channels + channel;
    for (int r = 0; r < kTile && row + r < a.height; ++r)
      for (int s = 0; s < kTile && column + s < a.width; ++s) {
        store<T>(values[r * kTile + s], channels, to + (r * step * width + s * step) * a.out_channels);
        if (moments) sums.add(values[r * kTile + s]);
      }
  }
  if (moments) sums.store(channel, channels, a.out_channels, moments);
}

template <class T>
int64_t items(const Correlation<T>& a) {
  const Shape<T> shape(a);
  return a.parts * shape.blocks * shape.targets;
}

template <class T>
int64_t scratch_size(const Correlation<T>& a) {
  const Shape<T> shape(a);
  const int64_t groups = shape.block / kRows;
  return kProducts * (shape.left_stride(groups) + shape.product_stride(groups)) + shape.depth;
}

template <class T>
void run(const Correlation<T>& a, int64_t item, T* left) {
  const Shape<T> shape(a);
  const int parity = static_cast<int>(item % shape.targets);
  const int64_t block = item / shape.targets, begin = block % shape.blocks * shape.block;
  const int64_t first = block / shape.blocks * shape.tiles + begin, count = least(shape.block, shape.tiles - begin);
  const int64_t groups = over(count, kRows), height = kRows * shape.depth, width = shape.right_stride();
  const int64_t left_stride = shape.left_stride(groups), product_stride = shape.product_stride(groups);
  T *zeros = left + kProducts * left_stride, *products = zeros + shape.depth;
  std::memset(zeros, 0, shape.depth * sizeof(T));
  transform(a, shape, first, count, parity, left);
  double* moments = a.moments ? a.moments + item * (1 + 2 * a.out_channels) : nullptr;
  for (int64_t panel = 0; panel < shape.panels; ++panel) {
    const T* right = a.packed + (parity * shape.panels + panel) * kProducts * width;
    for (int64_t i = 0; i < kProducts; ++i)
      for (int64_t group = 0; group < groups; ++group)
        multiply<T, Left::kBlocks>(left + i * left_stride + group * height, right + i * width, shape.depth,
                                   products + i * product_stride + group * kRows * kColumns<T>);
    for (int v = 0; v < kWide; ++v)
      if (const int64_t channel = panel * kColumns<T> + v * kLanes<T>; channel < a.out_channels)
        results(a, shape, first, count, parity, products + v * kLanes<T>, channel, moments);
  }
}

template <class T>
constexpr CorrelationKernels<T> kTiled = {packed_size<T>, pack_items<T>, pack<T>, items<T>, scratch_size<T>, run<T>};

}  // namespace

const CorrelationKernels<float> kTiledFloat = kTiled<float>;
const CorrelationKernels<double> kTiledDouble = kTiled<double>;

}  // namespace pygen::PYGEN_ISA
