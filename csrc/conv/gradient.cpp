// The weight's gradient of up and down, by tiles of 4x4 pixels or directly. CMake compiles this file once per
// instruction set, PYGEN_ISA naming the namespace. Sums run in an order that depends on the sizes alone, never on the
// threads.
#include "conv.h"
#include "transform.h"

namespace pygen::PYGEN_ISA {
namespace {

// Over positions - tiles or pixels of the small picture - and for each of `products` points and `parts` parities, the
// gradient sums outer products of big numbers (patches, where there are no tiles) and small channels.
template <class T, bool kTiled>
struct Shape {
  static constexpr int64_t kParts = kTiled ? 4 : 1, kMany = kTiled ? kProducts : 1, kTaps = kTiled ? 1 : 16;
  int64_t rows, columns;          // positions of a picture
  int64_t big, small;             // padded
  int64_t groups, panels;         // of the result
  int64_t left_size, right_size;  // of one position and one point

  explicit Shape(const WeightGradient<T>& a)
      : rows(kTiled ? over(a.height, kTile) : a.height),
        columns(kTiled ? over(a.width, kTile) : a.width),
        big(up_to(kTaps * a.big_channels, kHigh<T>)),
        small(up_to(a.small_channels, kColumns<T>)),
        groups(over(kTaps * a.big_channels, kRows)),
        panels(small / kColumns<T>),
        left_size(kParts * kMany * big),
        right_size(kMany * small) {}
};

template <class T, bool kTiled>
int64_t positions(const WeightGradient<T>& a) {
  const Shape<T, kTiled> shape(a);
  return a.images * shape.rows * shape.columns;
}

// Positions gathered at a time: what fits into a third-level cache.
template <class T, bool kTiled>
int64_t chunk(const WeightGradient<T>& a) {
  constexpr int64_t kCached = 16 << 20;
  const Shape<T, kTiled> shape(a);
  const int64_t fitting = kCached / static_cast<int64_t>(sizeof(T)) / (shape.left_size + shape.right_size);
  const int64_t least = fitting > kChunk ? fitting / kChunk * kChunk : kChunk, all = positions<T, kTiled>(a);
  return least < all ? least : all;
}

template <class T, bool kTiled>
int64_t gathered_size(const WeightGradient<T>& a) {
  const Shape<T, kTiled> shape(a);
  return chunk<T, kTiled>(a) * (shape.left_size + shape.right_size);
}

template <class T, bool kTiled>
int64_t scratch_size(const WeightGradient<T>& a) {
  const Shape<T, kTiled> shape(a);
  return shape.big + shape.small;
}

// Where a big channel is in left [channels / high, products, positions, high].
template <class T>
inline int64_t place(int64_t channel, int64_t products, int64_t count) {
  return channel / kHigh<T> * products * count * kHigh<T> + channel % kHigh<T>;
}

template <class T>
void gather_tile(const WeightGradient<T>& a, const Shape<T, true>& shape, int64_t tile, int64_t count, const T* zeros,
                 T* left, T* right) {
  using Lanes = typename Vector<T>::Lanes;
  const int64_t in_image = shape.rows * shape.columns, image = tile / in_image,
                row = tile % in_image / shape.columns * kTile, column = tile % shape.columns * kTile;
  const T* big = a.big + image * 4 * a.height * a.width * a.big_channels;
  for (int parity = 0; parity < 4; ++parity, left += shape.big * kProducts * count) {
    const Window<T, kPoints> window(big, 2 * a.height, 2 * a.width, a.big_channels, 2 * row - parity / 2,
                                    2 * column - parity % 2, 2, zeros);
    for (int64_t channel = 0; channel < shape.big; channel += kLanes<T>) {
      Lanes d[kProducts];
      if (const int64_t n = a.big_channels - channel; n >= kLanes<T>)
        transform_inputs<true, T>(window, channel, n, d);
      else
        transform_inputs<false, T>(window, channel, n, d);
#pragma GCC unroll 25
      for (int i = 0; i < kProducts; ++i)
        Vector<T>::store(d[i], left + place<T>(channel, kProducts, count) + i * count * kHigh<T>);
    }
  }
  const Window<T, kTile> window(a.small + image * a.height * a.width * a.small_channels, a.height, a.width,
                                a.small_channels, row, column, 1, zeros);
  for (int64_t channel = 0; channel < shape.small; channel += kLanes<T>) {
    T* to = right + channel / kColumns<T> * kProducts * count * kColumns<T> + channel % kColumns<T>;
    Lanes s[kTile * kTile], rows[kTile][kPoints];
#pragma GCC unroll 16
    for (int i = 0; i < kTile * kTile; ++i) load(window.pixels[i] + channel, a.small_channels - channel, s[i]);
#pragma GCC unroll 4
    for (int i = 0; i < kTile; ++i)
      results_to_points<T>(s[kTile * i], s[kTile * i + 1], s[kTile * i + 2], s[kTile * i + 3], rows[i]);
#pragma GCC unroll 5
    for (int j = 0; j < kPoints; ++j) {
      Lanes points[kPoints];
      results_to_points<T>(rows[0][j], rows[1][j], rows[2][j], rows[3][j], points);
      for (int i = 0; i < kPoints; ++i) Vector<T>::store(points[i], to + (i * kPoints + j) * count * kColumns<T>);
    }
  }
}

template <class T>
void gather_pixel(const WeightGradient<T>& a, const Shape<T, false>& shape, int64_t pixel, int64_t count, T* patch,
                  T* left, T* right) {
  using Lanes = typename Vector<T>::Lanes;
  const int64_t image = pixel / (a.height * a.width), y = pixel / a.width % a.height, x = pixel % a.width;
  const T* big = a.big + image * 4 * a.height * a.width * a.big_channels;
  copy_patch(big, a.height, a.width, a.big_channels, y, x, patch);
  for (int64_t channel = 0; channel < shape.big; channel += kLanes<T>) {
    Lanes lanes;
    load(patch + channel, 16 * a.big_channels - channel, lanes);
    Vector<T>::store(lanes, left + place<T>(channel, 1, count));
  }
  const T* small = a.small + pixel * a.small_channels;
  for (int64_t channel = 0; channel < shape.small; channel += kLanes<T>) {
    Lanes lanes;
    load(small + channel, a.small_channels - channel, lanes);
    Vector<T>::store(lanes, right + channel / kColumns<T> * count * kColumns<T> + channel % kColumns<T>);
  }
}

// gathered: left [parts, big / high, products, count, high], then right [panels, products, count, columns].
template <class T, bool kTiled>
void gather(const WeightGradient<T>& a, int64_t first, int64_t count, int64_t begin, int64_t end, T* scratch,
            T* gathered) {
  const Shape<T, kTiled> shape(a);
  T* right = gathered + count * shape.left_size;
  std::memset(scratch, 0, scratch_size<T, kTiled>(a) * sizeof(T));
  for (int64_t i = begin; i < end; ++i) {
    T *left_row = gathered + i * kHigh<T>, *right_row = right + i * kColumns<T>;
    if constexpr (kTiled)
      gather_tile(a, shape, first + i, count, scratch, left_row, right_row);
    else
      gather_pixel(a, shape, first + i, count, scratch, left_row, right_row);
  }
}

template <class T, bool kTiled>
int64_t multiply_items(const WeightGradient<T>& a) {
  const Shape<T, kTiled> shape(a);
  return shape.panels * shape.groups;
}

// The gradients of a few big channels and a panel of small ones, taps [16, rows, columns].
template <class T>
using Taps = T[16][kRows][kColumns<T>];

// The 4 taps of a parity from products [products, rows, columns].
template <class T>
void finish_tiles(int parity, const T* products, Taps<T>& taps) {
  using Lanes = typename Vector<T>::Lanes;
  constexpr int kSize = kRows * kColumns<T>;
  for (int at = 0; at < kSize; at += kLanes<T>, products += kLanes<T>) {
    Lanes rows[2][kPoints], left, right;
#pragma GCC unroll 5
    for (int j = 0; j < kPoints; ++j) {
      Lanes p[kPoints];
#pragma GCC unroll 5
      for (int i = 0; i < kPoints; ++i) Vector<T>::load(products + (i * kPoints + j) * kSize, p[i]);
      taps_of_points<T>(p[0], p[1], p[2], p[3], p[4], rows[0][j], rows[1][j]);
    }
#pragma GCC unroll 2
    for (int t = 0; t < 2; ++t) {
      const int row = 4 * tap(false, parity / 2, t);
      taps_of_points<T>(rows[t][0], rows[t][1], rows[t][2], rows[t][3], rows[t][4], left, right);
      Vector<T>::store(left, taps[row + tap(false, parity % 2, 0)][0] + at);
      Vector<T>::store(right, taps[row + tap(false, parity % 2, 1)][0] + at);
    }
  }
}

template <class T>
void put(const WeightGradient<T>& a, int64_t group, int64_t panel, bool adds, const Taps<T>& taps) {
  const int64_t big = group * kRows, small = panel * kColumns<T>;
  for (int64_t c = 0; c < kColumns<T> && small + c < a.small_channels; ++c)
    for (int64_t r = 0; r < kRows && big + r < a.big_channels; ++r) {
      T* to = a.out.data + (small + c) * a.out.small + (big + r) * a.out.big;
      for (int i = 0; i < 16; ++i) {
        T& value = to[i / 4 * a.out.row + i % 4 * a.out.column];
        value = adds ? value + taps[i][r][c] : taps[i][r][c];
      }
    }
}

// Where rows are taps and big channels.
template <class T>
void put_rows(const WeightGradient<T>& a, int64_t group, int64_t panel, bool adds, const T* products) {
  const int64_t small = panel * kColumns<T>;
  for (int64_t r = 0; r < kRows && group * kRows + r < 16 * a.big_channels; ++r) {
    const int64_t row = group * kRows + r, i = row / a.big_channels;
    T* to = a.out.data + row % a.big_channels * a.out.big + i / 4 * a.out.row + i % 4 * a.out.column;
    for (int64_t c = 0; c < kColumns<T> && small + c < a.small_channels; ++c) {
      T& value = to[(small + c) * a.out.small];
      value = adds ? value + products[r * kColumns<T> + c] : products[r * kColumns<T> + c];
    }
  }
}

template <class T, bool kTiled>
void multiply_item(const WeightGradient<T>& a, int64_t first, int64_t count, int64_t item, const T* gathered) {
  const Shape<T, kTiled> shape(a);
  constexpr int64_t kMany = shape.kMany, kSize = kRows * kColumns<T>;
  const int64_t group = item % shape.groups, panel = item / shape.groups;
  const T *left = gathered + place<T>(group * kRows, kMany, count),
          *right = gathered + count * shape.left_size + panel * kMany * count * kColumns<T>;
  alignas(64) T products[kMany * kSize];
  const auto fill = [&](int64_t part) {
    const T* of_part = left + part * shape.big * kMany * count;
    for (int64_t i = 0; i < kMany; ++i)
      multiply<T, Left::kColumns>(of_part + i * count * kHigh<T>, right + i * count * kColumns<T>, count,
                                  products + i * kSize);
  };
  if constexpr (kTiled) {
    alignas(64) Taps<T> taps;
    for (int parity = 0; parity < shape.kParts; ++parity) {
      fill(parity);
      finish_tiles<T>(parity, products, taps);
    }
    put<T>(a, group, panel, first > 0, taps);
  } else {
    fill(0);
    put_rows(a, group, panel, first > 0, products);
  }
}

template <class T, bool kTiled>
constexpr WeightGradientKernels<T> kGradient = {positions<T, kTiled>,    chunk<T, kTiled>,  gathered_size<T, kTiled>,
                                                scratch_size<T, kTiled>, gather<T, kTiled>, multiply_items<T, kTiled>,
                                                multiply_item<T, kTiled>};

}  // namespace

const WeightGradientKernels<float> kTiledGradientFloat = kGradient<float, true>,
                                   kDirectGradientFloat = kGradient<float, false>;
const WeightGradientKernels<double> kTiledGradientDouble = kGradient<double, true>,
                                    kDirectGradientDouble = kGradient<double, false>;

}  // namespace pygen::PYGEN_ISA
