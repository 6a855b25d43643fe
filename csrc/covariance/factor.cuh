// Inverses of Cholesky factors on the GPU, in float64, by forward elimination of [S | I] in tiles of 64 x 64: with
// S = R^T R, what S leaves of I is R^-T, which is stored transposed.
#pragma once
#include "double_tile.cuh"

namespace pygen {

constexpr int kDiagonalThreads = 256;

// A block factors the tile of `s` [K, dims, dims] on the diagonal at `panel` of one matrix, of which only the upper
// triangle is read, and writes the transposed inverse of its factor to that of `u`. positive [K]: whether all panels so
// far were.
__global__ void __launch_bounds__(kDiagonalThreads)
    diagonal_factor_kernel(const double* __restrict__ s, double* u, int64_t dims, int64_t panel, bool* positive) {
  constexpr int kSide = DoubleTraits::kSide;
  struct Shared {
    // Row i has what is left of I up to column i, and from there on that of S, a column further to the right.
    double rows[kSide][kSide + 1];
  };
  auto& rows = static_shared<Shared>().rows;
  const int64_t begin = panel * kSide, matrix = blockIdx.x * dims * dims;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32,
            size = static_cast<int>(min(dims - begin, int64_t{kSide}));
  for (int i = threadIdx.x; i < kSide * kSide; i += kDiagonalThreads) {
    const int row = i / kSide, column = i % kSide;
    const double identity = row == column;
    if (column <= row) rows[row][column] = identity;
    if (column >= row)
      rows[row][column + 1] = column < size ? s[matrix + (begin + row) * dims + begin + column] : identity;
  }
  for (int done = 0; done < kSide - 1; ++done) {
    __syncthreads();
    const double* pivot = rows[done];
    const double scale = 1 / pivot[done + 1];
    for (int row = done + 1 + warp; row < kSide; row += kDiagonalThreads / 32) {
      const double factor = pivot[row + 1] * scale;
      for (int column = lane; column <= kSide; column += 32)
        if (column <= done || column > row) rows[row][column] = fma(-factor, pivot[column], rows[row][column]);
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < size * size; i += kDiagonalThreads) {
    const int row = i / size, column = i % size;  // of the inverse
    if (column <= row) u[matrix + (begin + column) * dims + begin + row] = rows[row][column] / sqrt(rows[row][row + 1]);
  }
  if (threadIdx.x != 0) return;
  bool all = panel == 0 || positive[blockIdx.x];
  for (int i = 0; i < size; ++i) all = all && rows[i][i + 1] > 0 && isfinite(rows[i][i + 1]);
  positive[blockIdx.x] = all;
}

// With that inverse in place: kPanel, the other tiles of its row of [S | I], else what they take from the tiles below.
// `u` is the transpose of what I becomes.
template <bool kPanel>
__global__ void __launch_bounds__(DoubleTraits::kThreads)
    eliminate_kernel(double* s, double* u, int64_t dims, int64_t panel) {
  using D = DoubleTraits;
  DoubleSlice& slice = static_shared<DoubleSlice>();
  const int64_t sides = double_sides(dims), below = sides - panel - 1, in_s = below * (below + 1) / 2;
  const int64_t tiles = kPanel ? sides - 1 : in_s + below * (panel + 1);
  int64_t tile = blockIdx.x % tiles, top, left;  // of the result
  const bool in_u = kPanel ? tile < panel : tile >= in_s;
  if (kPanel) {
    top = in_u ? tile : panel;
    left = in_u ? panel : tile + 1;
  } else if (in_u) {
    top = (tile - in_s) / below;
    left = panel + 1 + (tile - in_s) % below;
  } else {
    for (top = panel + 1; tile >= sides - top; ++top) tile -= sides - top;
    left = top + tile;
  }
  const int64_t matrix = blockIdx.x / tiles * dims * dims, row = top * D::kSide, column = left * D::kSide;
  s += matrix;
  u += matrix;
  const auto element = [&](const double* of, int64_t i, int64_t j) {
    return i < dims && j < dims ? of[i * dims + j] : 0;
  };
  const double *left_of = kPanel ? u : s, *right_of = kPanel && in_u ? u : s;
  DoubleSums sums = {};
  for (int begin = 0; begin < D::kSide; begin += D::kDepth) {
    const int64_t depth = panel * D::kSide + begin;
    for (int i = threadIdx.x; i < D::kSide * D::kDepth; i += D::kThreads) {
      if (in_u)
        slice.a[i % D::kDepth][i / D::kDepth] = element(u, row + i / D::kDepth, depth + i % D::kDepth);
      else
        slice.a[i / D::kSide][i % D::kSide] = element(left_of, depth + i / D::kSide, row + i % D::kSide);
      slice.b[i / D::kSide][i % D::kSide] = element(right_of, depth + i / D::kSide, column + i % D::kSide);
    }
    __syncthreads();
    multiply(slice, sums);
    __syncthreads();
  }
  double* out = in_u ? u : s;
  const int lane = threadIdx.x % 32;
  for (int m = 0; m < kEighths; ++m)
    for (int n = 0; n < kEighths; ++n)
      for (int i = 0; i < 2; ++i) {
        const int64_t at_row = row + double_row() + 8 * m + lane / 4;
        const int64_t at_column = column + double_column() + 8 * n + lane % 4 * 2 + i;
        if (at_row >= dims || at_column >= dims) continue;
        double& to = out[at_row * dims + at_column];
        to = kPanel ? sums[m][n][i] : to - sums[m][n][i];
      }
}

}  // namespace pygen
