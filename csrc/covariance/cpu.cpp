// Full covariances on the CPU: two matrix products with what surrounds them. Both beat a library's product because they
// leave out what is zero or mirrored and never write what is only summed. CMake compiles this file once per instruction
// set, PYGEN_ISA naming the namespace. Sums run in an order that depends on the sizes alone, never on the threads.
#include "../lanes.h"
#include "covariance.h"

namespace pygen::PYGEN_ISA {
namespace {

// Sums held in registers: rows times vectors, with room for the vectors loaded and one broadcast.
constexpr int kWide = 2, kRows = kRegisters == 32 ? 12 : 6;
constexpr int kTall = kRegisters == 32 ? 8 : kVectorBytes == 32 ? 4 : 2, kBroad = 3;

// The columns of a panel are a whole number of the rows that are multiplied together.
static_assert(kBroad * Vector<double>::kLanes % kTall == 0);

template <int Rows, class T>
void whiten_rows(const Whitening<T>& a, int64_t first, T* difference) {
  using V = Vector<T>;
  const T* row[Rows];
  for (int i = 0; i < Rows; ++i) row[i] = a.x + (a.rows ? a.rows[first + i] : first + i) * a.dims;
  for (int64_t j = 0; j < a.size; ++j) {
    const int64_t feature = a.features ? a.features[j] : j;
    for (int i = 0; i < Rows; ++i) difference[j * Rows + i] = row[i][feature] - a.centre[j];
  }
  typename V::Lanes squares[Rows] = {};
  const T* panel = a.panels;
  for (int64_t p = 0; p < a.n_panels; ++p) {
    typename V::Lanes sums[Rows][kWide] = {};
    for (int64_t j = 0; j < a.heights[p]; ++j, panel += kWide * V::kLanes) {
      typename V::Lanes columns[kWide];
      for (int v = 0; v < kWide; ++v) V::load(panel + v * V::kLanes, columns[v]);
      for (int i = 0; i < Rows; ++i)
        for (int v = 0; v < kWide; ++v) sums[i][v] += columns[v] * difference[j * Rows + i];
    }
    for (int i = 0; i < Rows; ++i)
      for (int v = 0; v < kWide; ++v) squares[i] += sums[i][v] * sums[i][v];
  }
  for (int i = 0; i < Rows; ++i) a.norms[first + i] = V::sum(squares[i]);
}

template <class T>
void whiten(const Whitening<T>& a, int64_t begin, int64_t end, T* scratch) {
  for (; begin + kRows <= end; begin += kRows) whiten_rows<kRows>(a, begin, scratch);
  for (; begin < end; ++begin) whiten_rows<1>(a, begin, scratch);
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

void multiply(const double* packed, int64_t n, int64_t size, int64_t panel, double* second) {
  const double* left = packed + panel * n * kColumns;
  for (int64_t other = panel; other * kColumns < size; ++other) {
    const double* right = packed + other * n * kColumns;
    const int64_t column = other * kColumns, width = size - column < kColumns ? size - column : kColumns;
    for (int from = 0; from < kColumns; from += kTall) {
      D::Lanes sums[kTall][kBroad] = {};
      for (int64_t row = 0; row < n; ++row) {
        D::Lanes columns[kBroad];
        for (int v = 0; v < kBroad; ++v) D::load(right + row * kColumns + v * D::kLanes, columns[v]);
        for (int i = 0; i < kTall; ++i)
          for (int v = 0; v < kBroad; ++v) sums[i][v] += columns[v] * left[row * kColumns + from + i];
      }
      for (int i = 0; i < kTall && panel * kColumns + from + i < size; ++i) {
        double values[kColumns], *to = second + (panel * kColumns + from + i) * size + column;
        for (int v = 0; v < kBroad; ++v) D::store(sums[i][v], values + v * D::kLanes);
        for (int64_t j = 0; j < width; ++j) to[j] += values[j];
      }
    }
  }
}

}  // namespace

const CovarianceKernels kCovariance = {whiten<float>,
                                       whiten<double>,
                                       pack<float>,
                                       pack<double>,
                                       varies<float>,
                                       varies<double>,
                                       multiply,
                                       kRows,
                                       kWide * Vector<float>::kLanes,
                                       kWide * Vector<double>::kLanes,
                                       kColumns};

}  // namespace pygen::PYGEN_ISA
