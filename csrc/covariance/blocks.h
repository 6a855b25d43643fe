// What the bindings of full covariances share: matrices cut into panels, rows taken by tiles, the scatter of chosen
// rows.
#pragma once
#include <algorithm>
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
  for (int64_t begin = 0; begin < count; begin += width) {
    const int64_t end = std::min(begin + width, count);
    const auto is_empty = [&](int64_t row) {
      return std::all_of(columns.begin() + begin, columns.begin() + end,
                         [&](int64_t column) { return matrix[rows[row] * stride + column] == 0; });
    };
    const int64_t least = panels.heights.empty() ? 0 : panels.heights.back();
    int64_t height = size;
    while (height > least && is_empty(height - 1)) --height;
    panels.heights.push_back(height);
    const size_t start = panels.values.size();
    panels.values.resize(start + height * width);
    T* to = panels.values.data() + start;
    for (int64_t row = 0; row < height; ++row, to += width)
      for (int64_t column = begin; column < end; ++column)
        to[column - begin] = static_cast<T>(matrix[rows[row] * stride + columns[column]]);
  }
}

// Adds the upper triangle of sums [features, features] to both of total [dims, dims].
inline void add_symmetric(const std::vector<double>& sums, const std::vector<int64_t>& features, int64_t dims,
                          double* total) {
  constexpr int64_t kTile = 32;  // whole cache lines of either triangle
  const int64_t size = static_cast<int64_t>(features.size());
  for (int64_t top = 0; top < size; top += kTile)
    for (int64_t left = top; left < size; left += kTile)
      for (int64_t i = top; i < std::min(top + kTile, size); ++i)
        for (int64_t j = std::max(left, i); j < std::min(left + kTile, size); ++j) {
          total[features[i] * dims + features[j]] += sums[i * size + j];
          if (j != i) total[features[j] * dims + features[i]] += sums[i * size + j];
        }
}

// Adds to first [dims] and second [dims, dims] what n rows of x [*, dims] have to add, by the roots of their weights.
template <class T>
void scatter(const CovarianceKernels& kernels, const T* x, int64_t dims, const int64_t* rows, const double* roots,
             int64_t n, const double* mean, double* first, double* second) {
  constexpr int64_t kBlock = 192;  // rows packed together: 1 MB of 784 features
  constexpr int64_t kGrain = 64;   // columns a thread takes at least: whole cache lines of every row
  const RowKernels<T>& typed = of<T>(kernels);
  std::vector<unsigned char> varies(dims);
  torch::stable::parallel_for(0, dims, kGrain, [&](int64_t begin, int64_t end) {
    typed.varies(x, dims, rows, n, mean, begin, end, varies.data());
  });
  std::vector<int64_t> features;
  for (int64_t j = 0; j < dims; ++j)
    if (varies[j]) features.push_back(j);
  const int64_t size = static_cast<int64_t>(features.size()), panels = (size + kernels.columns - 1) / kernels.columns;
  std::vector<double> packed(panels * kernels.columns * std::min(n, kBlock)), sums(size * size);
  for (int64_t start = 0; start < n; start += kBlock) {
    const int64_t count = std::min(kBlock, n - start);
    const Scatter<T> block = {x,    dims, rows + start,  roots + start, count, features.data(),
                              size, mean, packed.data(), first};
    torch::stable::parallel_for(0, panels, 1, [&](int64_t begin, int64_t end) {
      for (int64_t panel = begin; panel < end; ++panel) typed.pack(block, panel);
    });
    // A panel from each end: together they are as long as any other two.
    torch::stable::parallel_for(0, (panels + 1) / 2, 1, [&](int64_t begin, int64_t end) {
      for (int64_t panel = begin; panel < end; ++panel) {
        kernels.multiply(packed.data(), count, size, panel, sums.data());
        if (const int64_t other = panels - 1 - panel; other != panel)
          kernels.multiply(packed.data(), count, size, other, sums.data());
      }
    });
  }
  add_symmetric(sums, features, dims, second);
}

}  // namespace pygen
