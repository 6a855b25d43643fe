// Full covariances on the CPU: matrix products with what surrounds them. They beat a library's because they leave out
// what is zero or mirrored and never write what is only summed. CMake compiles this file once per instruction set,
// PYGEN_ISA naming the namespace. Sums run in an order that depends on the sizes alone, never on the threads.
#include <cmath>
#include <type_traits>

#include "../lanes.h"
#include "covariance.h"

namespace pygen::PYGEN_ISA {
namespace {

// Sums held in registers: rows times vectors, with room for the vectors loaded and one broadcast.
constexpr int kRows = kRegisters == 32 ? 12 : 6;
constexpr int kTall = kRegisters == 32 ? 8 : kVectorBytes == 32 ? 4 : 2, kBroad = 3;

// The columns of a panel are a whole number of the rows that are multiplied together.
static_assert(kBroad * Vector<double>::kLanes % kTall == 0);

// Rows that are moved together, as many features at a time where these lie side by side.
constexpr int kPart = kRows / 3;
static_assert(kPart == 2 || kPart == 4);
template <class T>
struct Part {
  typedef T Lanes __attribute__((vector_size(kPart * sizeof(T))));
  typedef std::conditional_t<sizeof(T) == 4, int32_t, int64_t> Numbers __attribute__((vector_size(kPart * sizeof(T))));
  static void load(const T* from, Lanes& lanes) { std::memcpy(&lanes, from, sizeof lanes); }
  static void store(const Lanes& lanes, T* to) { std::memcpy(to, &lanes, sizeof lanes); }
};

// Elements of two vectors, which are numbered through.
#ifdef __clang__
#define PYGEN_ELEMENTS(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define PYGEN_ELEMENTS(a, b, ...) __builtin_shuffle(a, b, typename Part<T>::Numbers{__VA_ARGS__})
#endif

template <class T>
void transpose(const typename Part<T>::Lanes (&from)[kPart], typename Part<T>::Lanes (&to)[kPart]) {
  if constexpr (kPart == 2) {
    to[0] = PYGEN_ELEMENTS(from[0], from[1], 0, 2);
    to[1] = PYGEN_ELEMENTS(from[0], from[1], 1, 3);
  } else {
    using Lanes = typename Part<T>::Lanes;
    const Lanes low = PYGEN_ELEMENTS(from[0], from[1], 0, 4, 1, 5), high = PYGEN_ELEMENTS(from[0], from[1], 2, 6, 3, 7),
                next_low = PYGEN_ELEMENTS(from[2], from[3], 0, 4, 1, 5),
                next_high = PYGEN_ELEMENTS(from[2], from[3], 2, 6, 3, 7);
    to[0] = PYGEN_ELEMENTS(low, next_low, 0, 1, 4, 5);
    to[1] = PYGEN_ELEMENTS(low, next_low, 2, 3, 6, 7);
    to[2] = PYGEN_ELEMENTS(high, next_high, 0, 1, 4, 5);
    to[3] = PYGEN_ELEMENTS(high, next_high, 2, 3, 6, 7);
  }
}

template <class T>
void gather(const T* x, int64_t dims, const T* shift, const Features<T>& features, const int64_t* rows, int64_t n,
            T* tile) {
  using P = Part<T>;
  const auto [numbers, centre, size] = features;
  for (int i = 0; i < kRows; i += kPart) {
    const T* row[kPart];
    for (int r = 0; r < kPart; ++r) row[r] = x + rows[i + r < n ? i + r : n - 1] * dims;
    for (int64_t j = 0; j < size;) {
      const int64_t first = numbers[j];
      if (j + kPart > size || numbers[j + kPart - 1] != first + kPart - 1) {
        typename P::Lanes lanes;
        for (int r = 0; r < kPart; ++r) lanes[r] = row[r][first];
        if (shift) lanes -= shift[first];
        P::store(lanes - centre[j], tile + j * kRows + i);
        ++j;
        continue;
      }
      typename P::Lanes from[kPart], to[kPart], off;
      for (int r = 0; r < kPart; ++r) P::load(row[r] + first, from[r]);
      if (shift) {
        P::load(shift + first, off);
        for (int r = 0; r < kPart; ++r) from[r] -= off;
      }
      P::load(centre + j, off);
      for (int r = 0; r < kPart; ++r) from[r] -= off;
      transpose<T>(from, to);
      for (int c = 0; c < kPart; ++c, ++j) P::store(to[c], tile + j * kRows + i);
    }
  }
}

// Whole vectors: what is read and written beyond a feature's rows belongs to the next one, or to the tile's padding.
template <class T>
void choose(const T* tile, const Features<T>& features, T* chosen) {
  using V = Vector<T>;
  const auto [numbers, centre, size] = features;
  for (int64_t j = 0; j < size; ++j)
    for (int i = 0; i < kRows; i += V::kLanes) {
      typename V::Lanes lanes;
      V::load(tile + numbers[j] * kRows + i, lanes);
      V::store(lanes - centre[j], chosen + j * kRows + i);
    }
}

// Rows of a panel until what is asked for now is multiplied: panels come from a cache further away than a tile.
constexpr int64_t kAsked = 16;

// Two panels at a time, and below the lower one the other alone.
template <class T>
void whiten(const Whitening<T>& a, const T* tile, double* norms) {
  using V = Vector<T>;
  typename V::Lanes squares[kRows] = {};
  const T* panel = a.panels;
  for (int64_t p = 0; p < a.n_panels; p += 2) {
    const bool both = p + 1 < a.n_panels;
    const int64_t low = both ? a.heights[p] : 0, high = a.heights[p + both];
    const T* next = panel + low * V::kLanes;
    typename V::Lanes sums[kRows][2] = {}, columns[2];
    for (int64_t j = 0; j < low; ++j) {
      __builtin_prefetch(panel + (j + kAsked) * V::kLanes);
      __builtin_prefetch(next + (j + kAsked) * V::kLanes);
      V::load(panel + j * V::kLanes, columns[0]);
      V::load(next + j * V::kLanes, columns[1]);
      for (int i = 0; i < kRows; ++i)
        for (int v = 0; v < 2; ++v) sums[i][v] += columns[v] * tile[j * kRows + i];
    }
    for (int64_t j = low; j < high; ++j) {
      __builtin_prefetch(next + (j + kAsked) * V::kLanes);
      V::load(next + j * V::kLanes, columns[1]);
      for (int i = 0; i < kRows; ++i) sums[i][1] += columns[1] * tile[j * kRows + i];
    }
    for (int i = 0; i < kRows; ++i)
      for (int v = 0; v < 2; ++v) squares[i] += sums[i][v] * sums[i][v];
    panel = next + high * V::kLanes;
  }
  for (int i = 0; i < kRows; ++i) norms[i] += V::sum(squares[i]);
}

template <class T>
void scale(const T* tile, const Features<T>& features, const T* precisions, double* norms) {
  T sums[kRows] = {};
  for (int64_t j = 0; j < features.size; ++j)
    for (int i = 0; i < kRows; ++i) {
      const T difference = tile[features.numbers[j] * kRows + i] - features.centre[j];
      sums[i] += difference * difference * precisions[j];
    }
  for (int i = 0; i < kRows; ++i) norms[i] += sums[i];
}

using D = Vector<double>;
constexpr int kColumns = kBroad * D::kLanes;

template <class T>
void varies(const T* x, int64_t dims, const int64_t* rows, int64_t n, const double* mean, int64_t begin, int64_t end,
            unsigned char* found) {
  for (int64_t j = begin; j < end; ++j) found[j] = 0;
  for (int64_t i = 0; i < n; ++i) {
    const T* row = x + rows[i] * dims;
    for (int64_t j = begin; j < end; ++j) found[j] |= static_cast<double>(row[j]) != mean[j];
  }
}

template <class T>
void pack(const Scatter<T>& a, int64_t panel) {
  const int64_t begin = panel * kColumns, width = a.size - begin < kColumns ? a.size - begin : kColumns;
  constexpr int64_t kAhead = 16;  // rows until what is fetched now is read
  double* to = a.packed + panel * a.n * kColumns;
  int64_t features[kColumns];
  double first[kColumns] = {}, mean[kColumns];
  // What fills the last panel is never read.
  for (int64_t j = 0; j < kColumns; ++j) {
    features[j] = a.features[begin + (j < width ? j : 0)];
    mean[j] = a.mean[features[j]];
  }
  for (int64_t n = 0; n < a.n; ++n, to += kColumns) {
    const T* row = a.x + a.rows[n] * a.dims;
    const T* soon = a.x + a.rows[n + kAhead < a.n ? n + kAhead : n] * a.dims;
    __builtin_prefetch(soon + features[0]);
    __builtin_prefetch(soon + features[width - 1]);
    const double root = a.roots[n];
    double values[kColumns];
    for (int j = 0; j < kColumns; ++j) values[j] = row[features[j]];
    for (int j = 0; j < kColumns; ++j) {
      values[j] = root * (values[j] - mean[j]);
      first[j] += root * values[j];
    }
    std::memcpy(to, values, sizeof values);
  }
  for (int64_t j = 0; j < width; ++j) a.first[features[j]] += first[j];
}

// Rows of panels until what is asked for now is multiplied.
constexpr int64_t kSoon = 8;

// Products of kTall columns of one panel with all of another.
inline void product(const double* left, const double* right, int64_t n, D::Lanes (&sums)[kTall][kBroad]) {
  for (int64_t row = 0; row < n; ++row) {
    __builtin_prefetch(left + (row + kSoon) * kColumns);
    for (int v = 0; v < kBroad; ++v) __builtin_prefetch(right + (row + kSoon) * kColumns + v * D::kLanes);
    D::Lanes columns[kBroad];
    for (int v = 0; v < kBroad; ++v) D::load(right + row * kColumns + v * D::kLanes, columns[v]);
    for (int i = 0; i < kTall; ++i)
      for (int v = 0; v < kBroad; ++v) sums[i][v] += columns[v] * left[row * kColumns + i];
  }
}

void multiply(const double* packed, int64_t n, int64_t size, int64_t panel, bool add, double* second) {
  const double* left = packed + panel * n * kColumns;
  for (int64_t other = panel; other * kColumns < size; ++other) {
    const double* right = packed + other * n * kColumns;
    const int64_t column = other * kColumns, width = size - column < kColumns ? size - column : kColumns;
    for (int from = 0; from < kColumns; from += kTall) {
      D::Lanes sums[kTall][kBroad] = {};
      double* to = second + (panel * kColumns + from) * size + column;
      if (add)
        for (int i = 0; i < kTall; ++i)
          for (int64_t j = 0; j < kColumns; j += 64 / sizeof(double)) __builtin_prefetch(to + i * size + j, 1);
      product(left + from, right, n, sums);
      for (int i = 0; i < kTall && panel * kColumns + from + i < size; ++i, to += size) {
        if (width == kColumns) {
          for (int v = 0; v < kBroad; ++v) {
            D::Lanes before = {};
            if (add) D::load(to + v * D::kLanes, before);
            D::store(before + sums[i][v], to + v * D::kLanes);
          }
        } else {
          double values[kColumns];
          for (int v = 0; v < kBroad; ++v) D::store(sums[i][v], values + v * D::kLanes);
          for (int64_t j = 0; j < width; ++j) to[j] = (add ? to[j] : 0) + values[j];
        }
      }
    }
  }
}

// Takes from block `row` of a panel what the rows above have to do with it, and gives the block.
double* reduce(const Panel& above, const Panel& panel, int64_t row) {
  const int64_t n = row * kColumns - panel.start;
  double* block = panel.values + n * kColumns;
  for (int from = 0; from < kColumns; from += kTall) {
    D::Lanes sums[kTall][kBroad] = {};
    product(above.values + panel.start * kColumns + from, panel.values, n, sums);
    for (int i = 0; i < kTall; ++i)
      for (int v = 0; v < kBroad; ++v) {
        D::Lanes lanes;
        double* to = block + (from + i) * kColumns + v * D::kLanes;
        D::load(to, lanes);
        D::store(lanes - sums[i][v], to);
      }
  }
  return block;
}

bool factor(const Panel* panels, int64_t row, double* reciprocals) {
  double* block = reduce(panels[row], panels[row], row);
  for (int i = 0; i < kColumns; ++i) {
    double* pivot = block + i * kColumns;
    if (!(pivot[i] > 0 && std::isfinite(pivot[i]))) return false;
    reciprocals[i] = 1 / std::sqrt(pivot[i]);
    for (int j = 0; j < kColumns; ++j) pivot[j] = j < i ? 0 : pivot[j] * reciprocals[i];
    for (int k = i + 1; k < kColumns; ++k)
      for (int j = k; j < kColumns; ++j) block[k * kColumns + j] -= pivot[k] * pivot[j];
  }
  return true;
}

void eliminate(const Panel* panels, int64_t row, int64_t column, const double* reciprocals) {
  double* block = reduce(panels[row], panels[column], row);
  const double* corner = panels[row].values + row * kColumns * kColumns;
  for (int i = 0; i < kColumns; ++i)
    for (int v = 0; v < kBroad; ++v) {
      D::Lanes sum, lanes;
      D::load(block + i * kColumns + v * D::kLanes, sum);
      for (int k = 0; k < i; ++k) {
        D::load(block + k * kColumns + v * D::kLanes, lanes);
        sum -= lanes * corner[k * kColumns + i];
      }
      D::store(sum * reciprocals[i], block + i * kColumns + v * D::kLanes);
    }
}

template <class T>
constexpr RowKernels<T> kRowKernels = {gather<T>, choose<T>, whiten<T>,        scale<T>,
                                       pack<T>,   varies<T>, Vector<T>::kLanes};

}  // namespace

const CovarianceKernels kCovariance = {
    kRowKernels<float>, kRowKernels<double>, multiply, factor, eliminate, kRows, kColumns};

}  // namespace pygen::PYGEN_ISA
