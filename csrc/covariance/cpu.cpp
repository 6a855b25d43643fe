// Full covariances on the CPU: matrix products with what surrounds them. They beat a library's because they leave out
// what is zero or mirrored and never write what is only summed. CMake compiles this file once per instruction set,
// PYGEN_ISA naming the namespace. Sums run in an order that depends on the sizes alone, never on the threads.
#include <cmath>

#include "../lanes.h"
#include "covariance.h"

namespace pygen::PYGEN_ISA {
namespace {

// Sums held in registers: rows times vectors, with room for the vectors loaded and one broadcast.
constexpr int kWide = 2, kRows = kRegisters == 32 ? 12 : 6;
constexpr int kTall = kRegisters == 32 ? 8 : kVectorBytes == 32 ? 4 : 2, kBroad = 3;

// The columns of a panel are a whole number of the rows that are multiplied together.
static_assert(kBroad * Vector<double>::kLanes % kTall == 0);

template <class T>
void gather(const T* x, int64_t dims, const T* centre, const int64_t* rows, int64_t n, T* tile) {
  const T* row[kRows];
  for (int i = 0; i < kRows; ++i) row[i] = x + rows[i < n ? i : n - 1] * dims;
  for (int64_t j = 0; j < dims; ++j) {
    const T shift = centre ? centre[j] : 0;
    for (int i = 0; i < kRows; ++i) tile[j * kRows + i] = row[i][j] - shift;
  }
}

template <class T>
void whiten(const Whitening<T>& a, const T* tile, T* difference, double* norms) {
  using V = Vector<T>;
  int64_t size = 0;
  for (int64_t p = 0; p < a.n_panels; ++p) size = a.heights[p] > size ? a.heights[p] : size;
  for (int64_t j = 0; j < size; ++j)
    for (int i = 0; i < kRows; ++i) difference[j * kRows + i] = tile[a.features[j] * kRows + i] - a.centre[j];
  typename V::Lanes squares[kRows] = {};
  const T* panel = a.panels;
  for (int64_t p = 0; p < a.n_panels; ++p) {
    typename V::Lanes sums[kRows][kWide] = {};
    for (int64_t j = 0; j < a.heights[p]; ++j, panel += kWide * V::kLanes) {
      typename V::Lanes columns[kWide];
      for (int v = 0; v < kWide; ++v) V::load(panel + v * V::kLanes, columns[v]);
      for (int i = 0; i < kRows; ++i)
        for (int v = 0; v < kWide; ++v) sums[i][v] += columns[v] * difference[j * kRows + i];
    }
    for (int i = 0; i < kRows; ++i)
      for (int v = 0; v < kWide; ++v) squares[i] += sums[i][v] * sums[i][v];
  }
  for (int i = 0; i < kRows; ++i) norms[i] += V::sum(squares[i]);
}

template <class T>
void scale(const Scaling<T>& a, const T* tile, double* norms) {
  T sums[kRows] = {};
  for (int64_t j = 0; j < a.size; ++j)
    for (int i = 0; i < kRows; ++i) {
      const T difference = tile[a.features[j] * kRows + i] - a.centre[j];
      sums[i] += difference * difference * a.precisions[j];
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
  const int64_t* features = a.features + begin;
  double* to = a.packed + panel * a.n * kColumns;
  double first[kColumns] = {}, mean[kColumns];
  for (int64_t j = 0; j < width; ++j) mean[j] = a.mean[features[j]];
  for (int64_t n = 0; n < a.n; ++n, to += kColumns) {
    const T* row = a.x + a.rows[n] * a.dims;
    for (int64_t j = 0; j < width; ++j) {
      to[j] = a.roots[n] * (static_cast<double>(row[features[j]]) - mean[j]);
      first[j] += a.roots[n] * to[j];
    }
    for (int64_t j = width; j < kColumns; ++j) to[j] = 0;
  }
  for (int64_t j = 0; j < width; ++j) a.first[features[j]] += first[j];
}

// Products of kTall columns of one panel with all of another.
inline void product(const double* left, const double* right, int64_t n, D::Lanes (&sums)[kTall][kBroad]) {
  for (int64_t row = 0; row < n; ++row) {
    D::Lanes columns[kBroad];
    for (int v = 0; v < kBroad; ++v) D::load(right + row * kColumns + v * D::kLanes, columns[v]);
    for (int i = 0; i < kTall; ++i)
      for (int v = 0; v < kBroad; ++v) sums[i][v] += columns[v] * left[row * kColumns + i];
  }
}

void multiply(const double* packed, int64_t n, int64_t size, int64_t panel, double* second) {
  const double* left = packed + panel * n * kColumns;
  for (int64_t other = panel; other * kColumns < size; ++other) {
    const double* right = packed + other * n * kColumns;
    const int64_t column = other * kColumns, width = size - column < kColumns ? size - column : kColumns;
    for (int from = 0; from < kColumns; from += kTall) {
      D::Lanes sums[kTall][kBroad] = {};
      product(left + from, right, n, sums);
      for (int i = 0; i < kTall && panel * kColumns + from + i < size; ++i) {
        double values[kColumns], *to = second + (panel * kColumns + from + i) * size + column;
        for (int v = 0; v < kBroad; ++v) D::store(sums[i][v], values + v * D::kLanes);
        for (int64_t j = 0; j < width; ++j) to[j] += values[j];
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
constexpr RowKernels<T> kRowKernels = {gather<T>, whiten<T>, scale<T>, pack<T>, varies<T>, kWide * Vector<T>::kLanes};

}  // namespace

const CovarianceKernels kCovariance = {
    kRowKernels<float>, kRowKernels<double>, multiply, factor, eliminate, kRows, kColumns};

}  // namespace pygen::PYGEN_ISA
