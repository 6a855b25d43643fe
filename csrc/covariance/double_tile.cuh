// A tile of a float64 product, 64 x 64, by four warps: what products of double, and sums of products that must be, are
// made of.
#pragma once
#include "../ptx.h"

namespace pygen {

struct DoubleTraits {
  static constexpr int kSide = 64, kThreads = 128;
  static constexpr int kDepth = 16;            // a slice of two operands: 17 KB
  static constexpr int kStride = kSide + 4;    // rows of four, a half-warp's, lie in different banks
  static constexpr int kWarpSide = kSide / 2;  // 32 sums a thread
};

// Tiles along a side of a matrix.
__host__ __device__ inline int64_t double_sides(int64_t dims) {
  return (dims + DoubleTraits::kSide - 1) / DoubleTraits::kSide;
}

// The operands of kDepth products for each number of a tile.
struct DoubleSlice {
  double a[DoubleTraits::kDepth][DoubleTraits::kStride], b[DoubleTraits::kDepth][DoubleTraits::kStride];
};

// A warp's part of a tile: 8 x 8 of sums, of which a lane has those at row `lane / 4`, columns `lane % 4 * 2` and next.
constexpr int kEighths = DoubleTraits::kWarpSide / 8;
using DoubleSums = double[kEighths][kEighths][2];

__device__ __forceinline__ int double_row() { return threadIdx.x / 32 / 2 * DoubleTraits::kWarpSide; }
__device__ __forceinline__ int double_column() { return threadIdx.x / 32 % 2 * DoubleTraits::kWarpSide; }

// sums += a^T b
__device__ __forceinline__ void multiply(const DoubleSlice& slice, DoubleSums& sums) {
  const int lane = threadIdx.x % 32, row = double_row() + lane / 4, column = double_column() + lane / 4;
  for (int k = lane % 4; k < DoubleTraits::kDepth; k += 4) {
    double b[kEighths];
    for (int n = 0; n < kEighths; ++n) b[n] = slice.b[k][column + 8 * n];
    for (int m = 0; m < kEighths; ++m) {
      const double a = slice.a[k][row + 8 * m];
      for (int n = 0; n < kEighths; ++n) mma_double(sums[m][n], a, b[n]);
    }
  }
}

}  // namespace pygen
