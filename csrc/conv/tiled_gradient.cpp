// The weight's gradient of up and down, by tiles of 4x4 pixels. CMake compiles this file once per instruction set,
// PYGEN_ISA naming the namespace. Sums run in an order that depends on the sizes alone, never on the threads.
#include "conv.h"
#include "transform.h"

namespace pygen::PYGEN_ISA {
namespace {

constexpr int kParities = 4;

// For each of the points a matrix [big channels, tiles] is multiplied by one [tiles, small channels]. An item does so
// for a vector of big channels, all parities, and a strip of panels of small channels, with a chunk of tiles after the
// other, so that all that is larger than pictures and weights stays in a second-level cache.
template <class T>
struct Shape {
  static constexpr int64_t kTiles = kChunk;
  static constexpr int64_t kRowsOfItem = kParities * kHigh<T>;
  // A line of the cache more than a power of 2, which would be in the way.
  static constexpr int64_t kLeft = kRowsOfItem * kTiles + kLanes<T>, kRight = kColumns<T> * kTiles + kLanes<T>,
                           kProduct = kRowsOfItem * kColumns<T> + kLanes<T>;
  int64_t rows, columns;  // tiles of a picture
  int64_t tiles;
  int64_t vectors, panels, strip, strips;  // strip: panels of an item

  explicit Shape(const WeightGradient<T>& a)
      : rows(over(a.height, kTile)),
        columns(over(a.width, kTile)),
        tiles(a.images * rows * columns),
        vectors(over(a.big_channels, kHigh<T>)),
        panels(over(a.small_channels, kColumns<T>)),
        strip(strip_of<T>(panels, a.parts * vectors)),
        strips(over(panels, strip)) {}
};

// Where a tile's pixels are.
struct Place {
  int64_t image, row, column;

  template <class T>
  Place(const Shape<T>& shape, int64_t tile)
      : image(tile / (shape.rows * shape.columns)),
        row(tile / shape.columns % shape.rows * kTile),
        column(tile % shape.columns * kTile) {}
};

template <class T>
using Windows = Window<T, kTile>[Shape<T>::kTiles];

// A vector of big channels, left [points, parities, tiles, high].
template <class T>
void transform_big(const WeightGradient<T>& a, const Shape<T>& shape, int64_t first, int64_t count, int64_t channel,
                   const T* zeros, T* left) {
  const int64_t size = 4 * a.height * a.width * a.big_channels;
  for (int64_t i = 0; i < count; ++i) {
    const Place at(shape, first + i);
    for (int parity = 0; parity < kParities; ++parity) {
      const Window<T, kPoints> window(a.big + at.image * size, 2 * a.height, 2 * a.width, a.big_channels,
                                      2 * at.row - parity / 2, 2 * at.column - parity % 2, 2, zeros);
      T* to = left + (parity * count + i) * kHigh<T>;
      for (int64_t part = 0; part < kHigh<T>; part += kLanes<T>) {
        typename Vector<T>::Lanes d[kProducts];
        if (const int64_t n = a.big_channels - channel - part; n >= kLanes<T>)
          transform_inputs<true, T>(window, channel + part, n, d);
        else
          transform_inputs<false, T>(window, channel + part, n, d);
#pragma GCC unroll 25
        for (int point = 0; point < kProducts; ++point) Vector<T>::store(d[point], to + part + point * shape.kLeft);
      }
    }
  }
}

// A panel of small channels, right [points of a column, tiles, columns].
template <class T>
void transform_small(const WeightGradient<T>& a, const Windows<T>& windows, int64_t count, int64_t panel,
                     const Point<T>& point, T* right) {
  using Lanes = typename Vector<T>::Lanes;
  for (int64_t i = 0; i < count; ++i, right += kColumns<T>)
    for (int64_t part = 0; part < kColumns<T>; part += kLanes<T>) {
      const int64_t channel = panel * kColumns<T> + part;
      Lanes rows[kTile] = {}, points[kPoints];
#pragma GCC unroll 16
      for (int k = 0; k < kTile * kTile; ++k) {
        Lanes pixel;
        load(windows[i].pixels[k] + channel, a.small_channels - channel, pixel);
        rows[k / kTile] += point.results[k % kTile] * pixel;
      }
      results_to_points<T>(rows[0], rows[1], rows[2], rows[3], points);
#pragma GCC unroll 5
      for (int k = 0; k < kPoints; ++k) Vector<T>::store(points[k], right + part + k * Shape<T>::kRight);
    }
}

// The gradients of a vector of big channels and one of small ones, taps [16, high, lanes].
template <class T>
using Taps = T[16][kHigh<T>][kLanes<T>];

// From products [points, parities, high, columns].
template <class T>
void finish(const T* products, Taps<T>& taps) {
  using Lanes = typename Vector<T>::Lanes;
  for (int parity = 0; parity < kParities; ++parity)
    for (int row = 0; row < kHigh<T>; ++row, products += kColumns<T>) {
      Lanes rows[2][kPoints], left, right;
#pragma GCC unroll 5
      for (int j = 0; j < kPoints; ++j) {
        Lanes p[kPoints];
#pragma GCC unroll 5
        for (int i = 0; i < kPoints; ++i) Vector<T>::load(products + (i * kPoints + j) * Shape<T>::kProduct, p[i]);
        taps_of_points<T>(p[0], p[1], p[2], p[3], p[4], rows[0][j], rows[1][j]);
      }
#pragma GCC unroll 2
      for (int t = 0; t < 2; ++t) {
        const int first = 4 * tap(false, parity / 2, t);
        taps_of_points<T>(rows[t][0], rows[t][1], rows[t][2], rows[t][3], rows[t][4], left, right);
        Vector<T>::store(left, taps[first + tap(false, parity % 2, 0)][row]);
        Vector<T>::store(right, taps[first + tap(false, parity % 2, 1)][row]);
      }
    }
}

// To the gradient of `big` and `small` channels, or as many as there are room for.
template <class T>
void put(const Taps<T>& taps, int64_t big, int64_t small, const Weight<T>& to) {
  const bool is_whole = big >= kHigh<T> && small >= kLanes<T>;
  if (is_whole && to.row == 4 && to.column == 1) {
    for (int64_t r = 0; r < kHigh<T>; ++r)
      for (int64_t i = 0; i < 16; i += kLanes<T>)
        transpose(taps[i][r], kHigh<T> * kLanes<T>, to.data + r * to.big + i, to.small);
  } else if (is_whole && to.big == 1) {
    for (int64_t i = 0; i < 16; ++i)
      for (int64_t r = 0; r < kHigh<T>; r += kLanes<T>)
        transpose(taps[i][r], kLanes<T>, to.data + r + i / 4 * to.row + i % 4 * to.column, to.small);
  } else {
    for (int64_t c = 0; c < least(kLanes<T>, small); ++c)
      for (int64_t r = 0; r < least(kHigh<T>, big); ++r)
        for (int64_t i = 0; i < 16; ++i)
          to.data[c * to.small + r * to.big + i / 4 * to.row + i % 4 * to.column] = taps[i][r][c];
  }
}

template <class T>
int64_t items(const WeightGradient<T>& a) {
  const Shape<T> shape(a);
  return shape.vectors * shape.strips;
}

template <class T>
int64_t scratch_size(const WeightGradient<T>& a) {
  using S = Shape<T>;
  return kProducts * (S::kLeft + S(a).strip * S::kProduct) + kPoints * S::kRight + up_to(a.big_channels, kHigh<T>) +
         up_to(a.small_channels, kColumns<T>);
}

template <class T>
void run(const WeightGradient<T>& a, int64_t item, T* left) {
  using S = Shape<T>;
  const S shape(a);
  const int64_t channel = item % shape.vectors * kHigh<T>, first_panel = item / shape.vectors * shape.strip,
                last = least(first_panel + shape.strip, shape.panels);
  T *right = left + kProducts * S::kLeft, *products = right + kPoints * S::kRight,
    *zeros = products + shape.strip * kProducts * S::kProduct;
  std::memset(zeros, 0, (left + scratch_size(a) - zeros) * sizeof(T));
  for (int64_t first = 0; first < shape.tiles; first += S::kTiles) {
    const int64_t count = least(S::kTiles, shape.tiles - first);
    transform_big(a, shape, first, count, channel, zeros, left);
    Windows<T> windows;
    for (int64_t i = 0; i < count; ++i) {
      const Place at(shape, first + i);
      windows[i] = Window<T, kTile>(a.small + at.image * a.height * a.width * a.small_channels, a.height, a.width,
                                    a.small_channels, at.row, at.column, 1, zeros);
    }
    for (int64_t panel = first_panel; panel < last; ++panel)
      for (int j = 0; j < kPoints; ++j) {
        transform_small(a, windows, count, panel, Point<T>(j), right);
        for (int64_t i = 0; i < kPoints; ++i) {
          const T* of_point = left + (i * kPoints + j) * S::kLeft;
          T* to = products + ((panel - first_panel) * kProducts + i * kPoints + j) * S::kProduct;
          for (int64_t row = 0; row < S::kRowsOfItem; row += kRows)
            multiply_chunk<T, Left::kColumns>(of_point + row / kHigh<T> * kHigh<T> * count + row % kHigh<T>,
                                              right + i * S::kRight, count, first > 0, to + row * kColumns<T>);
        }
      }
  }
  for (int64_t panel = first_panel; panel < last; ++panel, products += kProducts * S::kProduct)
    for (int64_t part = 0; part < kColumns<T>; part += kLanes<T>)
      if (const int64_t small = panel * kColumns<T> + part; small < a.small_channels) {
        alignas(64) Taps<T> taps;
        finish<T>(products + part, taps);
        put<T>(
            taps, a.big_channels - channel, a.small_channels - small,
            {a.out.data + small * a.out.small + channel * a.out.big, a.out.small, a.out.big, a.out.row, a.out.column});
      }
}

template <class T>
constexpr WeightGradientKernels<T> kTiledGradient = {2, items<T>, scratch_size<T>, run<T>, nullptr, nullptr, nullptr};

}  // namespace

const WeightGradientKernels<float> kTiledGradientFloat = kTiledGradient<float>;
const WeightGradientKernels<double> kTiledGradientDouble = kTiledGradient<double>;

}  // namespace pygen::PYGEN_ISA
