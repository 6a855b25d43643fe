// Up and down by tiles of 4x4 pixels of one parity. CMake compiles this file once per instruction set, PYGEN_ISA naming
// the namespace. Sums run in an order that depends on the sizes alone, never on the threads.
#include "activation.h"
#include "conv.h"
#include "moments.h"
#include "transform.h"

namespace pygen::PYGEN_ISA {
namespace {

constexpr int kParities = 4, kTaps = 4;  // of a parity

// For each of the points a matrix [tiles, inputs] is multiplied by one [inputs, out_channels]. An item does so for a
// block of tiles, a parity and a panel of output channels, with a chunk of inputs after the other, so that all that is
// larger than pictures and weights stays in a second-level cache.
template <class T>
struct Shape {
  static constexpr int64_t kBlock = 128 / sizeof(T);  // tiles
  int64_t vectors;                                    // of input channels
  int64_t sources;                                    // parities summed
  int64_t targets;                                    // parities written
  int64_t panels;                                     // of output channels
  int64_t strip;                                      // panels of an item
  int64_t strips;
  int64_t tile_rows, tile_columns;
  int64_t tiles;   // of a part of the batch
  int64_t blocks;  // of a part
  int64_t block;   // tiles of an item
  bool streams;    // results, past the caches

  // From a point's matrix to the next: a line of the cache more than a power of 2, which would be in its way.
  static constexpr int64_t kRight = kChunk * kColumns<T> + kLanes<T>, kLeft = kBlock * kChunk + kLanes<T>,
                           kProduct = kBlock * kColumns<T> + kLanes<T>;

  explicit Shape(const Correlation<T>& a)
      : vectors(over(a.channels, kLanes<T>)),
        sources(a.up ? 1 : kParities),
        targets(a.up ? kParities : 1),
        panels(over(a.out_channels, kColumns<T>)),
        tile_rows(over(a.height, kTile)),
        tile_columns(over(a.width, kTile)),
        tiles(a.images / a.parts * tile_rows * tile_columns),
        blocks(over(tiles, kBlock)),
        block(up_to(over(tiles, blocks), kRows)) {
    blocks = over(tiles, block);
    strip = strip_of<T>(panels, a.parts * blocks * targets);
    strips = over(panels, strip);
    // Bytes that stay in the caches until they are read, as they are at once if batch norm follows.
    constexpr int64_t kCached = 8 << 20;
    const int64_t bytes = a.images * a.height * a.width * targets * a.out_channels * static_cast<int64_t>(sizeof(T));
    streams = Vector<T>::kStreams && !a.moments && bytes > kCached && a.out_channels % kLanes<T> == 0 &&
              reinterpret_cast<uintptr_t>(a.out) % sizeof(typename Vector<T>::Lanes) == 0;
  }
  // Of what is packed: [panels, parities, vectors * lanes, taps, columns].
  int64_t packed(int64_t panel, int64_t parity, int64_t channel) const {
    return ((panel * kParities + parity) * vectors * kLanes<T> + channel) * kTaps * kColumns<T>;
  }
};

template <class T>
int64_t packed_size(const Correlation<T>& a) {
  const Shape<T> shape(a);
  return shape.packed(shape.panels, 0, 0);
}

template <class T>
int64_t pack_items(const Correlation<T>& a) {
  const Shape<T> shape(a);
  return shape.panels * shape.vectors;
}

// Weights of `channels` of a vector of input channels and `columns` of one of output channels, taps
// [channels, 16, columns]; others are 0.
template <class T>
void load_taps(const T* from, int64_t in, int64_t out, int64_t row, int64_t column, int64_t channels, int64_t columns,
               T* taps) {
  constexpr int64_t kNext = 16 * kLanes<T>;
  const bool is_whole = channels >= kLanes<T> && columns >= kLanes<T>;
  if (is_whole && row == 4 && column == 1) {
    for (int64_t k = 0; k < kLanes<T>; ++k)
      for (int64_t i = 0; i < 16; i += kLanes<T>)
        transpose(from + k * in + i, out, taps + k * kNext + i * kLanes<T>, kLanes<T>);
  } else if (is_whole && in == 1) {
    for (int64_t i = 0; i < 16; ++i) transpose(from + i / 4 * row + i % 4 * column, out, taps + i * kLanes<T>, kNext);
  } else {
    for (int64_t k = 0; k < kLanes<T>; ++k)
      for (int64_t i = 0; i < 16; ++i)
        for (int64_t j = 0; j < kLanes<T>; ++j)
          taps[k * kNext + i * kLanes<T> + j] =
              k < channels && j < columns ? from[k * in + j * out + i / 4 * row + i % 4 * column] : T(0);
  }
}

// By parity and tap, for a panel and a vector of input channels.
template <class T>
void pack(const Correlation<T>& a, const Weight<const T>& weight, int64_t item, T* packed) {
  const Shape<T> shape(a);
  const int64_t panel = item / shape.vectors, first = item % shape.vectors * kLanes<T>;
  const int64_t in = a.up ? weight.small : weight.big, out = a.up ? weight.big : weight.small;
  for (int64_t begin = 0; begin < kColumns<T>; begin += kLanes<T>) {
    T taps[16 * kLanes<T> * kLanes<T>];  // [channels, 16, columns]
    const int64_t column = panel * kColumns<T> + begin;
    load_taps(weight.data + first * in + column * out, in, out, weight.row, weight.column, a.channels - first,
              a.out_channels - column, taps);
    for (int64_t k = 0; k < kLanes<T>; ++k)
      for (int parity = 0; parity < kParities; ++parity)
        for (int i = 0; i < kTaps; ++i) {
          const int from = 4 * tap(a.up, parity / 2, i / 2) + tap(a.up, parity % 2, i % 2);
          std::memcpy(packed + shape.packed(panel, parity, first + k) + i * kColumns<T> + begin,
                      taps + (16 * k + from) * kLanes<T>, kLanes<T> * sizeof(T));
        }
  }
}

// Weights of `count` input channels, right [points of a column, count, columns], from taps [count, taps, columns].
template <class T>
void transform_weights(const T* taps, int64_t count, const Point<T>& point, T* right) {
  using V = Vector<T>;
  const T first = point.taps[0], second = point.taps[1];
  for (int64_t k = 0; k < count; ++k, taps += kTaps * kColumns<T>)
    for (int64_t column = 0; column < kColumns<T>; column += kLanes<T>) {
      typename V::Lanes g[kTaps], points[kPoints];
      for (int i = 0; i < kTaps; ++i) V::load(taps + i * kColumns<T> + column, g[i]);
      taps_to_points<T>(first * g[0] + second * g[1], first * g[2] + second * g[3], points);
#pragma GCC unroll 5
      for (int i = 0; i < kPoints; ++i) V::store(points[i], right + i * Shape<T>::kRight + k * kColumns<T> + column);
    }
}

// Where the inputs of a block's tiles are.
template <class T>
using Windows = Window<T, kPoints>[Shape<T>::kBlock];

template <class T>
void look(const Correlation<T>& a, const Shape<T>& shape, int64_t first, int64_t count, int parity, const T* zeros,
          Windows<T>& windows) {
  const int64_t in_image = shape.tile_rows * shape.tile_columns, y = parity / 2, x = parity % 2;
  const int64_t height = a.up ? a.height : 2 * a.height, width = a.up ? a.width : 2 * a.width;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t tile = first + i, image = tile / in_image, row = tile % in_image / shape.tile_columns * kTile,
                  column = tile % shape.tile_columns * kTile;
    const int64_t top = a.up ? row - 1 + y : 2 * row - y, begin = a.up ? column - 1 + x : 2 * column - x;
    windows[i] = Window<T, kPoints>(a.x + image * height * width * a.channels, height, width, a.channels, top, begin,
                                    a.up ? 1 : 2, zeros);
  }
}

// Asks for a window's pixels of `count` channels: no hardware foresees pieces of a picture.
template <class T>
inline void prefetch(const Window<T, kPoints>& window, int64_t first, int64_t count) {
  constexpr int64_t kLine = 64 / sizeof(T);
  for (const T* pixel : window.pixels)
    for (int64_t channel = first; channel < first + count; channel += kLine) __builtin_prefetch(pixel + channel);
}

// Inputs of `count` channels, left [points, groups of rows, count / lanes, rows, lanes].
template <class T>
void transform(const Correlation<T>& a, int64_t tiles, const Windows<T>& windows, int64_t first, int64_t count,
               T* left) {
  constexpr int64_t kAhead = 3;
  for (int64_t i = 0; i < tiles; ++i) {
    if (i + kAhead < tiles) prefetch(windows[i + kAhead], first, count);
    T* to = left + i / kRows * kRows * count + i % kRows * kLanes<T>;
    for (int64_t channel = first; channel < first + count; channel += kLanes<T>, to += kRows * kLanes<T>) {
      typename Vector<T>::Lanes d[kProducts];
      if (const int64_t rest = a.channels - channel; rest >= kLanes<T>)
        transform_inputs<true, T>(windows[i], channel, rest, d);
      else
        transform_inputs<false, T>(windows[i], channel, rest, d);
#pragma GCC unroll 25
      for (int point = 0; point < kProducts; ++point) Vector<T>::store(d[point], to + point * Shape<T>::kLeft);
    }
  }
}

// Adds a tile, all or what lies in the picture.
template <class T>
inline __attribute__((always_inline)) void add(const typename Vector<T>::Lanes (&values)[kTile * kTile], int64_t rows,
                                               int64_t columns, Moments<T>& moments) {
  if (moments.n == 0) moments.shift = values[0];
  const bool is_whole = rows >= kTile && columns >= kTile;
  typename Vector<T>::Lanes more = moments.sum, more_squares = moments.squares;
#pragma GCC unroll 16
  for (int i = 0; i < kTile * kTile; ++i)
    if (is_whole || (i / kTile < rows && i % kTile < columns)) {
      const typename Vector<T>::Lanes difference = values[i] - moments.shift;
      more += difference;
      more_squares += difference * difference;
    }
  moments.sum = more, moments.squares = more_squares;
  moments.n += least(kTile, rows) * least(kTile, columns);
}

// Results of the tiles of an item and a vector of output channels from products [products, rows, columns].
template <class T>
void results(const Correlation<T>& a, const Shape<T>& shape, int64_t first, int64_t count, int parity,
             const T* products, int64_t channel, double* moments) {
  using Lanes = typename Vector<T>::Lanes;
  const int64_t in_image = shape.tile_rows * shape.tile_columns;
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
      for (int k = 0; k < kPoints; ++k) Vector<T>::load(products + (k * kPoints + j) * Shape<T>::kProduct, p[k]);
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
    const int64_t down = step * width * a.out_channels, right = step * a.out_channels, rows_left = a.height - row,
                  columns_left = a.width - column;
    const bool is_whole = rows_left >= kTile && columns_left >= kTile && channels >= kLanes<T>;
    if (is_whole && shape.streams) {
#pragma GCC unroll 16
      for (int r = 0; r < kTile * kTile; ++r) Vector<T>::stream(values[r], to + r / kTile * down + r % kTile * right);
    } else if (is_whole) {
#pragma GCC unroll 16
      for (int r = 0; r < kTile * kTile; ++r) Vector<T>::store(values[r], to + r / kTile * down + r % kTile * right);
    } else {
      for (int r = 0; r < kTile && r < rows_left; ++r)
        for (int s = 0; s < kTile && s < columns_left; ++s)
          store<T>(values[r * kTile + s], channels, to + r * down + s * right);
    }
    if (moments) add<T>(values, rows_left, columns_left, sums);
  }
  if (moments) sums.store(channel, channels, a.out_channels, moments);
}

template <class T>
int64_t items(const Correlation<T>& a) {
  const Shape<T> shape(a);
  return a.parts * shape.blocks * shape.targets * shape.strips;
}

template <class T>
int64_t summaries(const Correlation<T>& a) {
  return items(a) / Shape<T>(a).strips;
}

template <class T>
int64_t scratch_size(const Correlation<T>& a) {
  const Shape<T> shape(a);
  return kProducts * (shape.kLeft + shape.strip * shape.kProduct) + kPoints * shape.kRight + shape.vectors * kLanes<T>;
}

template <class T>
void run(const Correlation<T>& a, int64_t item, T* left) {
  const Shape<T> shape(a);
  const int64_t first_panel = item % shape.strips * shape.strip, last = least(first_panel + shape.strip, shape.panels),
                summary = item / shape.strips, block = summary / shape.targets;
  const int64_t begin = block % shape.blocks * shape.block, first = block / shape.blocks * shape.tiles + begin,
                count = least(shape.block, shape.tiles - begin), depth = shape.vectors * kLanes<T>;
  T *right = left + kProducts * shape.kLeft, *products = right + kPoints * shape.kRight,
    *zeros = products + shape.strip * kProducts * shape.kProduct;
  std::memset(zeros, 0, depth * sizeof(T));
  const int target = static_cast<int>(summary % shape.targets);
  for (int source = 0; source < shape.sources; ++source) {
    const int parity = a.up ? target : source;
    Windows<T> windows;
    look(a, shape, first, count, parity, zeros, windows);
    for (int64_t channel = 0; channel < depth; channel += kChunk) {
      const int64_t chunk = least(kChunk, depth - channel);
      transform(a, count, windows, channel, chunk, left);
      for (int64_t panel = first_panel; panel < last; ++panel) {
        const T* taps = a.packed + shape.packed(panel, parity, channel);
        T* to = products + (panel - first_panel) * kProducts * shape.kProduct;
        for (int j = 0; j < kPoints; ++j) {
          transform_weights(taps, chunk, Point<T>(j), right);
          for (int64_t i = 0; i < kPoints; ++i)
            for (int64_t row = 0; row < count; row += kRows)
              multiply_chunk<T, Left::kBlocks>(left + (i * kPoints + j) * shape.kLeft + row * chunk,
                                               right + i * shape.kRight, chunk, source + channel > 0,
                                               to + (i * kPoints + j) * shape.kProduct + row * kColumns<T>);
        }
      }
    }
  }
  double* moments = a.moments ? a.moments + summary * (1 + 2 * a.out_channels) : nullptr;
  for (int64_t panel = first_panel; panel < last; ++panel, products += kProducts * shape.kProduct)
    for (int64_t v = 0; v < kWide; ++v)
      if (const int64_t channel = panel * kColumns<T> + v * kLanes<T>; channel < a.out_channels)
        results(a, shape, first, count, target, products + v * kLanes<T>, channel, moments);
  if (shape.streams) Vector<T>::streamed();
}

template <class T>
constexpr CorrelationKernels<T> kTiled = {packed_size<T>, pack_items<T>,   pack<T>, items<T>,
                                          summaries<T>,   scratch_size<T>, run<T>};

}  // namespace

const CorrelationKernels<float> kTiledFloat = kTiled<float>;
const CorrelationKernels<double> kTiledDouble = kTiled<double>;

}  // namespace pygen::PYGEN_ISA
