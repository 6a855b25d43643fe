// Up and down as one matrix product, for pictures too small or channels too few for tiles. CMake compiles this file
// once per instruction set, PYGEN_ISA naming the namespace. Sums run in an order that depends on the sizes alone, never
// on the threads.
#include "activation.h"
#include "bfloat16.h"
#include "conv.h"
#include "tile.h"

namespace pygen::PYGEN_ISA {
namespace {

constexpr int kTaps = 16;

// Down multiplies patches [positions, 16 channels] by [16 channels, out_channels]; up multiplies pixels
// [positions, channels] by [channels, 16 out_channels] and adds what meets in one place.
template <class T>
struct Shape {
  using N = Number<T>;
  int64_t numbers, depth;  // of a row of the left matrix; in whole vectors
  int64_t width;           // of the product
  int64_t columns, panels;
  int64_t rows, strips;    // of the small picture for an item, and such items
  int64_t images, blocks;  // of an item, where a strip is a whole picture; and such items of a part
  bool gathers;            // the left matrix: rows of `up` are the pixels, if they fill vectors

  explicit Shape(const Correlation<T>& a)
      : numbers(a.channels * (a.up ? 1 : kTaps)),
        depth(up_to(numbers, kLanes<N>)),
        width(a.out_channels * (a.up ? kTaps : 1)),
        columns(width <= kLanes<N> ? kLanes<N> : kColumns<N>),
        panels(over(width, columns)) {
    constexpr int64_t kCached = 256 << 10;  // bytes of what goes into the product and comes out of it
    constexpr int64_t kPositions = 64;      // for which weights are worth reading
    const int64_t row = a.width * (depth + panels * columns) * static_cast<int64_t>(sizeof(N));
    const int64_t fitting = kCached / row - (a.up ? 2 : 0), of_part = a.images / a.parts;
    strips = over(a.height, fitting < 1 ? 1 : least(fitting, a.height));
    rows = over(a.height, strips);
    strips = over(a.height, rows);
    const int64_t many = strips > 1 ? 1 : least(fitting / a.height, over(kPositions, a.height * a.width));
    images = least(many < 1 ? 1 : many, of_part);
    blocks = over(of_part, images);
    gathers = !kStoresNumbers<T> || !a.up || depth > numbers || a.width % kRows > 0;
  }
};

// What an item takes: of `images` pictures from `image` on, the rows of the small picture from `top` on. Up takes a row
// more on each side, where there is one.
struct Strip {
  int64_t image, images, top, rows;
  int64_t first, count;  // rows of the product

  template <class T>
  Strip(const Correlation<T>& a, const Shape<T>& shape, int64_t item) {
    const int64_t block = item / shape.strips, of_part = a.images / a.parts,
                  begin = block % shape.blocks * shape.images;
    image = block / shape.blocks * of_part + begin;
    images = least(shape.images, of_part - begin);
    top = item % shape.strips * shape.rows;
    rows = least(shape.rows, a.height - top);
    first = a.up && top > 0 ? top - 1 : top;
    count = (a.up && top + rows < a.height ? top + rows + 1 : top + rows) - first;
  }
};

template <class T>
int64_t packed_size(const Correlation<T>& a) {
  const Shape<T> shape(a);
  return shape.panels * shape.depth * shape.columns * kUnits<T>;
}

template <class T>
int64_t pack_items(const Correlation<T>& a) {
  return Shape<T>(a).panels;
}

// packed [panels, depth, columns]: rows or columns by tap, then by channel.
template <class T>
void pack(const Correlation<T>& a, const Weight<const T>& weight, int64_t panel, T* packed) {
  const Shape<T> shape(a);
  const int64_t in = a.up ? weight.small : weight.big, out = a.up ? weight.big : weight.small;
  const int64_t begin = panel * shape.columns, end = least(begin + shape.columns, shape.width);
  const auto place = [&](int64_t tap) { return tap / 4 * weight.row + tap % 4 * weight.column; };
  Number<T>* to = reinterpret_cast<Number<T>*>(packed) + panel * shape.depth * shape.columns;
  std::memset(to, 0, shape.depth * shape.columns * sizeof *to);
  if (a.up) {
    for (int64_t j = begin; j < end; ++j, ++to) {
      const T* from = weight.data + j % a.out_channels * out + place(j / a.out_channels);
      for (int64_t k = 0; k < shape.numbers; ++k) to[k * shape.columns] = number(from[k * in]);
    }
  } else {
    for (int64_t k = 0; k < shape.numbers; ++k, to += shape.columns) {
      const T* from = weight.data + k % a.channels * in + place(k / a.channels);
      for (int64_t j = begin; j < end; ++j) to[j - begin] = number(from[j * out]);
    }
  }
}

// Writes a row [numbers] to blocks [depth / lanes, rows, lanes].
template <class T>
inline void put_row(const Shape<T>& shape, const T* row, Number<T>* to) {
  for (int64_t k = 0; k < shape.depth; k += kLanes<T>, to += kRows * kLanes<T>) {
    typename Vector<T>::Lanes lanes;
    load(row + k, shape.numbers - k, lanes);
    Vector<Number<T>>::store(lanes, to);
  }
}

// The left matrix.
template <class T>
void gather(const Correlation<T>& a, const Shape<T>& shape, const Strip& strip, T* patch, Number<T>* left) {
  const int64_t scale = a.up ? 1 : 2, size = scale * scale * a.height * a.width * a.channels;
  int64_t i = 0;
  for (int64_t image = strip.image; image < strip.image + strip.images; ++image)
    for (int64_t y = strip.first; y < strip.first + strip.count; ++y)
      for (int64_t x = 0; x < a.width; ++x, ++i) {
        const T* picture = a.x + image * size;
        Number<T>* to = left + i / kRows * kRows * shape.depth + i % kRows * kLanes<T>;
        const bool is_vector = kStoresNumbers<T> && !a.up && shape.numbers == kLanes<T>;
        if (!a.up)
          copy_patch(picture, a.height, a.width, a.channels, y, x, is_vector ? reinterpret_cast<T*>(to) : patch);
        if (!is_vector) put_row(shape, a.up ? picture + (y * a.width + x) * a.channels : patch, to);
      }
}

// Row y of the result of `up`, from a picture's products [rows, width, panels * columns] that begin with row `first`.
// Four of them meet in a pixel; `zeros` stand for those outside of the picture. A single channel is known beforehand.
template <bool kSingle, class T>
void meet(const Correlation<T>& a, const Shape<T>& shape, const Number<T>* products, int64_t first, int64_t y,
          const Number<T>* bias, const Number<T>* zeros, Number<T>* to) {
  using N = Number<T>;
  const int64_t stride = shape.panels * shape.columns, channels = kSingle ? 1 : a.out_channels;
  const int64_t row = (y + 1) / 2 - 1, tap = y + 1 - 2 * row;
  const bool has_upper = row >= 0, has_lower = row + 1 < a.height;
  const N *upper = has_upper ? products + (row - first) * a.width * stride : zeros,
          *lower = has_lower ? products + (row + 1 - first) * a.width * stride : zeros;
  const int64_t upper_step = has_upper ? stride : 0, lower_step = has_lower ? stride : 0;
  for (int64_t x = 0; x < 2 * a.width; ++x, to += channels) {
    const int64_t column = (x + 1) / 2 - 1, next = x + 1 - 2 * column;
    const bool has_left = column >= 0, has_right = column + 1 < a.width;
    const int64_t here = (tap * 4 + next) * channels, beside = here - 2 * channels, below = 8 * channels;
    const N *a0 = (has_left ? upper + column * upper_step : zeros) + here,
            *a1 = (has_right ? upper + (column + 1) * upper_step : zeros) + beside,
            *b0 = (has_left ? lower + column * lower_step : zeros) + here - below,
            *b1 = (has_right ? lower + (column + 1) * lower_step : zeros) + beside - below;
    for (int64_t m = 0; m < channels; ++m) to[m] = (a0[m] + a1[m]) + (b0[m] + b1[m]) + bias[m];
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
  const Shape<T> shape(a);
  return a.parts * shape.blocks * shape.strips;
}

template <class T>
int64_t scratch_size(const Correlation<T>& a) {
  const Shape<T> shape(a);
  const int64_t rows = shape.strips == 1 ? shape.rows : shape.rows + (a.up ? 2 : 0);
  const int64_t positions = up_to(shape.images * rows * a.width, kRows), width = shape.panels * shape.columns,
                results = kStoresNumbers<T> ? 0 : (a.up ? 4 : 1) * a.out_channels;
  return (positions * (shape.depth + width + results) + kRows * kColumns<T> + shape.depth + width +
          up_to(a.out_channels, kLanes<T>)) *
         kUnits<T>;
}

template <class T>
void run(const Correlation<T>& a, int64_t item, T* scratch) {
  using N = Number<T>;
  const Shape<T> shape(a);
  const Strip strip(a, shape, item);
  const int64_t of_picture = strip.count * a.width, positions = strip.images * of_picture,
                groups = over(positions, kRows), width = shape.panels * shape.columns;
  N *tile = reinterpret_cast<N*>(scratch), *zeros = tile + kRows * kColumns<T>, *bias = zeros + width,
    *left = bias + up_to(a.out_channels, kLanes<T>), *products = left + groups * kRows * shape.depth;
  T* patch = reinterpret_cast<T*>(products + groups * kRows * width);
  std::memset(zeros, 0, width * sizeof(N));
  std::memset(patch, 0, shape.depth * sizeof(T));
  for (int64_t m = 0; m < a.out_channels; ++m) bias[m] = a.bias ? a.bias[m] : N(0);
  if (shape.gathers) gather(a, shape, strip, patch, left);
  const int64_t scale = a.up ? 2 : 1, out_row = scale * a.width * a.out_channels;
  T* out = a.out + scale * (strip.image * a.height + strip.top) * out_row;
  N* results = kStoresNumbers<T> ? reinterpret_cast<N*>(out) : reinterpret_cast<N*>(patch) + shape.depth;
  const int64_t stride = a.up ? width : a.out_channels;
  N* to = a.up ? products : results;
  for (int64_t panel = 0; panel < shape.panels; ++panel)
    for (int64_t group = 0; group < groups; ++group) {
      const N* right = reinterpret_cast<const N*>(a.packed) + panel * shape.depth * shape.columns;
      const int64_t at = panel * shape.columns, count = least(shape.columns, stride - at),
                    rows = least(kRows, positions - group * kRows);
      const bool is_whole = count == shape.columns && rows == kRows;
      N *place = to + group * kRows * stride + at, *sums = is_whole ? place : tile;
      const int64_t step = is_whole ? stride : shape.columns, at_row = group * kRows * shape.depth;
      const auto multiply_group = [&](auto vectors) {
        constexpr int kSums = decltype(vectors)::value;
        if constexpr (kStoresNumbers<T>)
          if (!shape.gathers) {
            const T* pixels = a.x + (strip.image * a.height + strip.first) * a.width * a.channels;
            return multiply<T, Left::kStrided, kSums>(pixels + at_row, right, shape.depth, sums, step, shape.depth);
          }
        multiply<N, Left::kBlocks, kSums>(left + at_row, right, shape.depth, sums, step);
      };
      shape.columns == kLanes<T> ? multiply_group(std::integral_constant<int, 1>())
                                 : multiply_group(std::integral_constant<int, kWide>());
      if (!is_whole)
        for (int64_t i = 0; i < rows; ++i) std::memcpy(place + i * stride, tile + i * step, count * sizeof(N));
    }
  if (!a.up && a.bias)
    for (int64_t i = 0; i < positions; ++i)
      for (int64_t m = 0; m < a.out_channels; ++m) results[i * a.out_channels + m] += bias[m];
  if (a.up)
    for (int64_t image = 0; image < strip.images; ++image)
      for (int64_t y = 0; y < 2 * strip.rows; ++y)
        (a.out_channels == 1 ? meet<true, T> : meet<false, T>)(a, shape, products + image * of_picture * width,
                                                               strip.first, 2 * strip.top + y, bias, zeros,
                                                               results + (image * 2 * a.height + y) * out_row);
  const int64_t numbers = strip.images * scale * strip.rows * out_row;
  if (a.activation != kNone || !kStoresNumbers<T>)
    for (int64_t i = 0; i < numbers; i += kLanes<T>) {
      typename Vector<T>::Lanes lanes;
      load(results + i, numbers - i, lanes);
      activate<N>(a.activation, a.slope, &lanes, 1);
      store(lanes, numbers - i, out + i);
    }
  if (a.moments)
    moments_of(a.out_channels, numbers / a.out_channels, results, a.moments + item * (1 + 2 * a.out_channels));
}

template <class T>
constexpr CorrelationKernels<T> kDirect = {packed_size<T>, pack_items<T>,   pack<T>, items<T>,
                                           items<T>,       scratch_size<T>, run<T>};

}  // namespace

const CorrelationKernels<float> kDirectFloat = kDirect<float>;
const CorrelationKernels<double> kDirectDouble = kDirect<double>;
const CorrelationKernels<BFloat16> kDirectBFloat16 = kDirect<BFloat16>;

}  // namespace pygen::PYGEN_ISA
