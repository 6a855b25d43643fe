// csrc/covariance's kernels for one instruction set, PYGEN_ISA, behind C functions.
#include <algorithm>
#include <numeric>
#include <vector>

#include "csrc/covariance/cpu.cpp"

namespace {

using namespace pygen;

const CovarianceKernels& kAll = PYGEN_ISA::kCovariance;

// |(x - shift - centre) U|^2 by chosen features, taken from the rows or, with `twice`, from a tile of all features.
template <class T>
void norms(const RowKernels<T>& kernels, const T* x, int64_t n, int64_t dims, const T* shift, const int64_t* numbers,
           int64_t size, const T* centre, const T* factor, bool twice, double* out) {
  const int64_t width = kernels.columns, count = (size + width - 1) / width;
  std::vector<T> panels(count * size * width), zeros(dims);
  for (int64_t row = 0; row < size; ++row)
    for (int64_t column = 0; column < size; ++column)
      panels[(column / width * size + row) * width + column % width] = factor[row * size + column];
  const std::vector<int64_t> heights(count, size);
  std::vector<int64_t> every(dims), rows(n);
  std::iota(every.begin(), every.end(), 0);
  std::iota(rows.begin(), rows.end(), 0);
  const Features<T> all = {every.data(), zeros.data(), dims}, chosen = {numbers, centre, size};
  std::vector<T> whole(dims * kAll.rows + kTilePadding / sizeof(T)), tile(whole.size());
  std::vector<double> sums(kAll.rows);
  for (int64_t start = 0; start < n; start += kAll.rows) {
    const int64_t number = std::min<int64_t>(kAll.rows, n - start);
    kernels.gather(x, dims, shift, twice ? all : chosen, rows.data() + start, number,
                   twice ? whole.data() : tile.data());
    if (twice) kernels.choose(whole.data(), chosen, tile.data());
    std::fill(sums.begin(), sums.end(), 0);
    kernels.whiten({panels.data(), heights.data(), count}, tile.data(), sums.data());
    std::copy_n(sums.begin(), number, out + start);
  }
}

// The upper triangle of second [size, size] of two blocks of rows, and the sums first [dims].
template <class T>
void scatter(const RowKernels<T>& kernels, const T* x, int64_t n, int64_t dims, const double* roots,
             const int64_t* numbers, int64_t size, const double* mean, double* first, double* second) {
  const int64_t panels = (size + kAll.columns - 1) / kAll.columns;
  std::vector<double> packed(panels * kAll.columns * n);
  std::vector<int64_t> rows(n);
  std::iota(rows.begin(), rows.end(), 0);
  for (const int64_t start : {int64_t{0}, n / 3}) {
    const int64_t number = start == 0 ? n / 3 : n - start;
    const Scatter<T> block = {x,    dims, rows.data() + start, roots + start, number, numbers,
                              size, mean, packed.data(),       first};
    for (int64_t panel = 0; panel < panels; ++panel) kernels.pack(block, panel);
    for (int64_t panel = 0; panel < panels; ++panel)
      kAll.multiply(packed.data(), number, size, panel, start > 0, second);
  }
}

}  // namespace

extern "C" void norms_float(const float* x, int64_t n, int64_t dims, const float* shift, const int64_t* numbers,
                            int64_t size, const float* centre, const float* factor, bool twice, double* out) {
  norms(kAll.of_float, x, n, dims, shift, numbers, size, centre, factor, twice, out);
}

extern "C" void norms_double(const double* x, int64_t n, int64_t dims, const double* shift, const int64_t* numbers,
                             int64_t size, const double* centre, const double* factor, bool twice, double* out) {
  norms(kAll.of_double, x, n, dims, shift, numbers, size, centre, factor, twice, out);
}

extern "C" void scatter_float(const float* x, int64_t n, int64_t dims, const double* roots, const int64_t* numbers,
                              int64_t size, const double* mean, double* first, double* second) {
  scatter(kAll.of_float, x, n, dims, roots, numbers, size, mean, first, second);
}

extern "C" void scatter_double(const double* x, int64_t n, int64_t dims, const double* roots, const int64_t* numbers,
                               int64_t size, const double* mean, double* first, double* second) {
  scatter(kAll.of_double, x, n, dims, roots, numbers, size, mean, first, second);
}
