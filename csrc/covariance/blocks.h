// What the bindings of full covariances share: matrices cut into panels, rows taken by tiles, the scatter of chosen
// rows.
#pragma once
#include <algorithm>
#include <memory>
#include <numeric>
#include <vector>

#include "../common.h"
#include "covariance.h"

namespace pygen {

template <class T>
const RowKernels<T>& of(const CovarianceKernels& kernels);
template <>
inline const RowKernels<float>& of(const CovarianceKernels& kernels) {
  return kernels.of_float;
}
template <>
inline const RowKernels<double>& of(const CovarianceKernels& kernels) {
  return kernels.of_double;
}

inline std::vector<int64_t> range(int64_t n) {
  std::vector<int64_t> numbers(n);
  std::iota(numbers.begin(), numbers.end(), int64_t{0});
  return numbers;
}

template <class T>
struct Panels {
  std::vector<T> values;
  std::vector<int64_t> heights;
};

// Appends chosen rows and columns of a matrix with `stride`, by panels `width` columns wide, each as high as its lowest
// entry that is not zero or as the one before.
template <class T, class From>
void split(const From* matrix, int64_t stride, const std::vector<int64_t>& rows, const std::vector<int64_t>& columns,
           int width, Panels<T>& panels) {
  const int64_t size = static_cast<int64_t>(rows.size()), count = static_cast<int64_t>(columns.size());
  const size_t first = panels.heights.size();
  size_t end = panels.values.size();
  std::vector<size_t> starts;
  for (int64_t begin = 0; begin < count; begin += width) {
    const auto is_empty = [&](int64_t row) {
      return std::all_of(columns.begin() + begin, columns.begin() + std::min(begin + width, count),
                         [&](int64_t column) { return matrix[rows[row] * stride + column] == 0; });
    };
    const int64_t least = panels.heights.empty() ? 0 : panels.heights.back();
    int64_t height = size;
    while (height > least && is_empty(height - 1)) --height;
    panels.heights.push_back(height);
    starts.push_back(end);
    end += height * width;
  }
  panels.values.resize(end);
  // Row by row, as the matrix lies in memory: no panel before the first that is high enough has the row.
  size_t panel = 0;
  for (int64_t row = 0; row < size; ++row) {
    const From* from = matrix + rows[row] * stride;
    while (panel < starts.size() && panels.heights[first + panel] <= row) ++panel;
    for (size_t p = panel; p < starts.size(); ++p) {
      T* to = panels.values.data() + starts[p] + row * width;
      const int64_t begin = static_cast<int64_t>(p) * width, number = std::min<int64_t>(width, count - begin);
      for (int64_t i = 0; i < number; ++i) to[i] = static_cast<T>(from[columns[begin + i]]);
    }
  }
}

// Adds sums [features, features], of which the upper triangle is known, to total [dims, dims], or makes them all of it.
inline void spread(double* sums, const std::vector<int64_t>& features, int64_t dims, bool add, double* total) {
  constexpr int64_t kTile = 32;  // whole cache lines of either triangle
  const int64_t size = static_cast<int64_t>(features.size());
  for (int64_t top = 0; top < size; top += kTile)
    for (int64_t left = top; left < size; left += kTile)
      for (int64_t j = left; j < std::min(left + kTile, size); ++j)
        for (int64_t i = top; i < std::min(top + kTile, j); ++i) sums[j * size + i] = sums[i * size + j];
  for (int64_t row = 0, i = 0; row < dims; ++row) {
    double* to = total + row * dims;
    if (!add) std::fill_n(to, dims, 0);
    if (i == size || features[i] != row) continue;
    const double* from = sums + i * size;
    for (int64_t j = 0; j < size; ++j) to[features[j]] += from[j];
    ++i;
  }
}

// Adds to first [dims] what n rows of x [*, dims] have to add, by the roots of their weights; and to second
// [dims, dims], unless it is to be no more than that.
template <class T>
void scatter(const CovarianceKernels& kernels, const T* x, int64_t dims, const int64_t* rows, const double* roots,
             int64_t n, const double* mean, bool add, double* first, double* second) {
  constexpr int64_t kBlock = 96;  // rows packed together: half a MB of 784 features
  constexpr int64_t kGrain = 64;  // columns a thread takes at least: whole cache lines of every row
  const RowKernels<T>& typed = of<T>(kernels);
  std::vector<unsigned char> varies(dims);
  torch::stable::parallel_for(0, dims, kGrain, [&](int64_t begin, int64_t end) {
    typed.varies(x, dims, rows, n, mean, begin, end, varies.data());
  });
  std::vector<int64_t> features;
  for (int64_t j = 0; j < dims; ++j)
    if (varies[j]) features.push_back(j);
  const int64_t size = static_cast<int64_t>(features.size()), panels = (size + kernels.columns - 1) / kernels.columns;
  // Written before they are read.
  const std::unique_ptr<double[]> packed(new double[panels * kernels.columns * std::min(n, kBlock)]),
      sums(new double[size * size]);
  for (int64_t start = 0; start < n; start += kBlock) {
    const int64_t count = std::min(kBlock, n - start);
    const Scatter<T> block = {x,    dims, rows + start, roots + start, count, features.data(),
                              size, mean, packed.get(), first};
    torch::stable::parallel_for(0, panels, 1, [&](int64_t begin, int64_t end) {
      for (int64_t panel = begin; panel < end; ++panel) typed.pack(block, panel);
    });
    // A panel from each end: together they are as long as any other two.
    torch::stable::parallel_for(0, (panels + 1) / 2, 1, [&](int64_t begin, int64_t end) {
      for (int64_t panel = begin; panel < end; ++panel) {
        kernels.multiply(packed.get(), count, size, panel, start > 0, sums.get());
        if (const int64_t other = panels - 1 - panel; other != panel)
          kernels.multiply(packed.get(), count, size, other, start > 0, sums.get());
      }
    });
  }
  spread(sums.get(), features, dims, add, second);
}

}  // namespace pygen
