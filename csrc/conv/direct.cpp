// Up and down as one matrix product, for pictures too small or channels too few for tiles. CMake compiles this file
// once per instruction set, PYGEN_ISA naming the namespace. Sums run in an order that depends on the sizes alone, never
// on the threads.
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
  int64_t numbers, depth;  // of a row of the left matrix; in whole vectors
  int64_t width;           // of the product
  int64_t columns, panels;
  int64_t halo;          // up takes a pixel more on each side
  int64_t rows, strips;  // of the small picture for an item, and such items

  explicit Shape(const Correlation<T>& a)
      : numbers(a.channels * (a.up ? 1 : kTaps)),
        depth(up_to(numbers, kLanes<T>)),
        width(a.out_channels * (a.up ? kTaps : 1)),
        columns(width <= kLanes<T> ? kLanes<T> : kColumns<T>),
        panels(over(width, columns)),
        halo(a.up ? 1 : 0) {
    constexpr int64_t kCached = 256 << 10;  // bytes of what goes into the product and comes out of it
    const int64_t row = (a.width + 2 * halo) * (depth + panels * columns) * static_cast<int64_t>(sizeof(T));
    const int64_t fitting = kCached / row - 2 * halo;
    strips = over(a.height, fitting < 1 ? 1 : least(fitting, a.height));
    rows = over(a.height, strips);
    strips = over(a.height, rows);
  }
};

template <class T>
int64_t packed_size(const Correlation<T>& a) {
  const Shape<T> shape(a);
  return shape.panels * shape.depth * shape.columns;
}

template <class T>
int64_t pack_items(const Correlation<T>& a) {
  return Shape<T>(a).panels;
}

// packed [panels, depth, columns]: rows or columns by tap, then by channel.
template <class T>
void pack(const Correlation<T>& a, const Weight<const T>& weight, int64_t panel, T* packed) {
  const Shape<T> shape(a);
  T* to = packed + panel * shape.depth * shape.columns;
  const int64_t in = a.up ? weight.small : weight.big, out = a.up ? weight.big : weight.small;
  for (int64_t k = 0; k < shape.depth; ++k)
    for (int64_t j = panel * shape.columns; j < (panel + 1) * shape.columns; ++j) {
      const int64_t tap = a.up ? j / a.out_channels : k / a.channels, channel = a.up ? k : k % a.channels,
                    out_channel = a.up ? j % a.out_channels : j;
      *to++ = k < shape.numbers && j < shape.width
                  ? weight.data[channel * in + out_channel * out + tap / 4 * weight.row + tap % 4 * weight.column]
                  : T(0);
    }
}

// Writes a row [numbers] to blocks [depth / lanes, rows, lanes].
template <class T>
inline void put_row(const Shape<T>& shape, const T* row, T* to) {
  for (int64_t k = 0; k < shape.depth; k += kLanes<T>, to += kRows * kLanes<T>) {
    typename Vector<T>::Lanes lanes;
    load(row + k, shape.numbers - k, lanes);
    Vector<T>::store(lanes, to);
  }
}

// The left matrix for rows of the small picture from `top` on, with the halo; outside of the picture all is 0.
template <class T>
void gather(const Correlation<T>& a, const Shape<T>& shape, const T* picture, int64_t top, int64_t rows, T* patch,
            T* left) {
  int64_t i = 0;
  for (int64_t y = top - shape.halo; y < top + rows + shape.halo; ++y)
    for (int64_t x = -shape.halo; x < a.width + shape.halo; ++x, ++i) {
      const T* from = patch;
      if (!a.up) {
        int64_t at = 0;
        for (int64_t v = 2 * y - 1; v < 2 * y + 3; ++v)
          for (int64_t u = 2 * x - 1; u < 2 * x + 3; ++u) {
            const bool inside = v >= 0 && v < 2 * a.height && u >= 0 && u < 2 * a.width;
            const T* pixel = picture + (v * 2 * a.width + u) * a.channels;
            for (int64_t c = 0; c < a.channels; ++c) patch[at++] = inside ? pixel[c] : T(0);
          }
      } else if (y >= 0 && y < a.height && x >= 0 && x < a.width) {
        from = picture + (y * a.width + x) * a.channels;
      }
      put_row(shape, from, left + i / kRows * kRows * shape.depth + i % kRows * kLanes<T>);
    }
}

// Row y of the result of `up`, from products [positions, panels * columns] that begin at the halo above `top`. Four of
// them meet in a pixel.
template <class T>
void meet(const Correlation<T>& a, const Shape<T>& shape, const T* products, int64_t top, int64_t y, const T* bias,
          T* to) {
  const int64_t stride = shape.panels * shape.columns, down = (a.width + 2) * stride, channels = a.out_channels;
  const int64_t row = (y + 1) / 2 - 1, tap = y + 1 - 2 * row;
  const T* from = products + (row - top + 1) * down;
  for (int64_t x = 0; x < 2 * a.width; ++x, to += channels) {
    const int64_t column = (x + 1) / 2 - 1, next = x + 1 - 2 * column;
    const T *left = from + (column + 1) * stride + (tap * 4 + next) * channels,
            *right = from + (column + 2) * stride + (tap * 4 + next - 2) * channels;
    const int64_t below = down - 8 * channels;
    for (int64_t m = 0; m < channels; ++m)
      to[m] = (left[m] + right[m]) + (left[m + below] + right[m + below]) + bias[m];
  }
}

template <class T>
void moments_of(int64_t channels, int64_t n, const T* rows, double* moments) {
  double *sums = moments + 1, *squares = sums + channels;
  std::memset(sums, 0, 2 * channels * sizeof(double));
  for (int64_t i = 0; i < n; ++i)
    for (int64_t m = 0; m < channels; ++m) {
      const double difference = static_cast<double>(rows[i * channels + m]) - rows[m];
      sums[m] += difference;
      squares[m] += difference * difference;
    }
  moments[0] = static_cast<double>(n);
  for (int64_t m = 0; m < channels; ++m) {
    const double rest = squares[m] - sums[m] * sums[m] / n;
    squares[m] = rest > 0 ? rest : 0;
    sums[m] = rows[m] + sums[m] / n;
  }
}

template <class T>
int64_t items(const Correlation<T>& a) {
  return a.images * Shape<T>(a).strips;
}

template <class T>
int64_t scratch_size(const Correlation<T>& a) {
  const Shape<T> shape(a);
  const int64_t positions = up_to((shape.rows + 2 * shape.halo) * (a.width + 2 * shape.halo), kRows);
  return positions * (shape.depth + shape.panels * shape.columns) + kRows * kColumns<T> + shape.depth +
         up_to(a.out_channels, kLanes<T>);
}

template <class T>
void run(const Correlation<T>& a, int64_t item, T* tile) {
  const Shape<T> shape(a);
  const int64_t image = item / shape.strips, top = item % shape.strips * shape.rows;
  const int64_t rows = least(shape.rows, a.height - top);
  const int64_t positions = (rows + 2 * shape.halo) * (a.width + 2 * shape.halo), groups = over(positions, kRows);
  T *patch = tile + kRows * kColumns<T>, *bias = patch + shape.depth, *left = bias + up_to(a.out_channels, kLanes<T>),
    *products = left + groups * kRows * shape.depth;
  std::memset(patch, 0, shape.depth * sizeof(T));
  for (int64_t m = 0; m < a.out_channels; ++m) bias[m] = a.bias ? a.bias[m] : T(0);
  gather(a, shape, a.x + image * a.height * a.width * (a.up ? 1 : 4) * a.channels, top, rows, patch, left);
  const int64_t scale = a.up ? 2 : 1, width = scale * a.width;
  T* out = a.out + (image * scale * a.height + scale * top) * width * a.out_channels;
  const int64_t stride = a.up ? shape.panels * shape.columns : a.out_channels;
  for (int64_t panel = 0; panel < shape.panels; ++panel)
    for (int64_t group = 0; group < groups; ++group) {
      const T *rows_left = left + group * kRows * shape.depth, *right = a.packed + panel * shape.depth * shape.columns;
      shape.columns == kLanes<T> ? multiply<T, Left::kBlocks, 1>(rows_left, right, shape.depth, tile)
                                 : multiply<T, Left::kBlocks>(rows_left, right, shape.depth, tile);
      for (int64_t i = 0; i < kRows && group * kRows + i < positions; ++i)
        for (int64_t j = 0; j < shape.columns; j += kLanes<T>) {
          const int64_t at = panel * shape.columns + j, count = stride - at;
          if (count <= 0) continue;
          typename Vector<T>::Lanes lanes, summand;
          Vector<T>::load(tile + i * shape.columns + j, lanes);
          if (!a.up) {
            load(bias + at, count, summand);
            lanes += summand;
          }
          store<T>(lanes, count, (a.up ? products : out) + (group * kRows + i) * stride + at);
        }
    }
  if (a.up)
    for (int64_t y = 0; y < 2 * rows; ++y)
      meet(a, shape, products, top, 2 * top + y, bias, out + y * width * a.out_channels);
  const int64_t pixels = scale * rows * width;
  if (a.activation != kNone)
    for (int64_t i = 0; i < pixels * a.out_channels; i += kLanes<T>) {
      typename Vector<T>::Lanes lanes;
      load(out + i, pixels * a.out_channels - i, lanes);
      activate<T>(a.activation, a.slope, &lanes, 1);
      store<T>(lanes, pixels * a.out_channels - i, out + i);
    }
  if (a.moments) moments_of(a.out_channels, pixels, out, a.moments + item * (1 + 2 * a.out_channels));
}

template <class T>
constexpr CorrelationKernels<T> kDirect = {packed_size<T>, pack_items<T>, pack<T>, items<T>, scratch_size<T>, run<T>};

}  // namespace

const CorrelationKernels<float> kDirectFloat = kDirect<float>;
const CorrelationKernels<double> kDirectDouble = kDirect<double>;

}  // namespace pygen::PYGEN_ISA
