// A block's tile of a matrix product on tensor cores, its factors taken from shared memory.
//
// Half precision: one product, added where it is made. float: each factor is the sum of two TF32 numbers and a product
// that of three. Tensor cores truncate when they add, one way: only products of eight are added there, to zero; their
// sums are added in float, rounded to nearest.
#pragma once
#include "../ptx.h"
#include "maps.cuh"

namespace pygen {

// A block has kRows rows and kColumns columns, a warp kWarpRows by kWarpColumns of them. 64 bytes of the common
// dimension are taken at a time, kStages of them in flight; kBlocks fit a multiprocessor's registers.
template <class T_, int kRows_, int kColumns_, int kWarpRows_, int kWarpColumns_, int kStages_, int kBlocks_>
struct TileShape {
  using T = T_;
  static constexpr int kRows = kRows_, kColumns = kColumns_, kWarpRows = kWarpRows_, kWarpColumns = kWarpColumns_;
  static constexpr int kStages = kStages_, kBlocks = kBlocks_;
  static constexpr int kRowWarps = kRows / kWarpRows, kThreads = kRowWarps * (kColumns / kWarpColumns) * 32;
  static constexpr int kQuad = 16 / sizeof(T), kDepth = 64 / sizeof(T);
  static constexpr int kFragmentRows = kWarpRows / 16, kFragmentColumns = kWarpColumns / 8;
};

// One factor's slice. kDeep: a line is a row (or column) of the tile, and along it the common dimension; else the other
// way round. Pitches spread what a fragment takes over all banks.
template <class Shape, int kSide, bool kDeep>
struct Slice {
  static constexpr int kLines = kDeep ? kSide : Shape::kDepth, kLength = kDeep ? Shape::kDepth : kSide;
  static constexpr int kPitch = kLength + (kDeep ? Shape::kQuad : 8);
  static constexpr int kQuads = kLength / Shape::kQuad;  // of a line, 16 bytes each
  static constexpr int kLinesAtOnce = Shape::kThreads / kQuads, kEach = kLines / kLinesAtOnce;
  static_assert(Shape::kThreads % kQuads == 0 && kLines % kLinesAtOnce == 0, "every thread has as much to load");
  typename Shape::T data[kLines * kPitch];

  // What of it this thread loads: quad `quad()` of lines line(0), line(1), ...
  static __device__ __forceinline__ int line(int i) { return threadIdx.x / kQuads + i * kLinesAtOnce; }
  static __device__ __forceinline__ int quad() { return threadIdx.x % kQuads * Shape::kQuad; }
  __device__ __forceinline__ typename Shape::T* at(int i) { return data + line(i) * kPitch + quad(); }
};

// The accumulators of a thread: of fragment [i][j], rows lane / 4 and that + 8, columns 2 (lane % 4) and the next.
template <class Shape>
using Accumulators = float[Shape::kFragmentRows][Shape::kFragmentColumns][4];

struct Warp {
  int lane, row, column;  // the first of the tile's that are the warp's
};

template <class Shape>
__device__ __forceinline__ Warp this_warp() {
  // By a shuffle the compiler knows that it is the same in all lanes.
  const int warp = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / 32, 0);
  return {static_cast<int>(threadIdx.x) % 32, warp % Shape::kRowWarps * Shape::kWarpRows,
          warp / Shape::kRowWarps * Shape::kWarpColumns};
}

__device__ __forceinline__ void multiply_half(__half, float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  mma_half(c, a, b0, b1);
}
__device__ __forceinline__ void multiply_half(__nv_bfloat16, float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                              uint32_t b1) {
  mma_bf16(c, a, b0, b1);
}

// Adds the product of two slices.
template <class Shape, bool kDeepA, bool kDeepB>
__device__ __forceinline__ void multiply_slices(const Slice<Shape, Shape::kRows, kDeepA>& a,
                                                const Slice<Shape, Shape::kColumns, kDeepB>& b, const Warp& warp,
                                                Accumulators<Shape>& sums) {
  constexpr int kPitchA = Slice<Shape, Shape::kRows, kDeepA>::kPitch;
  constexpr int kPitchB = Slice<Shape, Shape::kColumns, kDeepB>::kPitch;
  const int lane = warp.lane;
#pragma unroll
  for (int depth = 0; depth < Shape::kDepth; depth += 16) {
    uint32_t others[Shape::kFragmentColumns / 2][4];
#pragma unroll
    for (int j = 0; j < Shape::kFragmentColumns / 2; ++j) {
      const int column = warp.column + 16 * j + lane / 16 * 8, k = depth + lane / 8 % 2 * 8;
      if (kDeepB)
        ldmatrix(others[j], b.data + (column + lane % 8) * kPitchB + k);
      else
        ldmatrix_transposed(others[j], b.data + (k + lane % 8) * kPitchB + column);
    }
#pragma unroll
    for (int i = 0; i < Shape::kFragmentRows; ++i) {
      const int row = warp.row + 16 * i + lane / 8 % 2 * 8, k = depth + lane / 16 * 8;
      uint32_t one[4];
      if (kDeepA)
        ldmatrix(one, a.data + (row + lane % 8) * kPitchA + k);
      else
        ldmatrix_transposed(one, a.data + (k + lane % 8) * kPitchA + row);
#pragma unroll
      for (int j = 0; j < Shape::kFragmentColumns; ++j)
        multiply_half(typename Shape::T(), sums[i][j], one, others[j / 2][j % 2 * 2], others[j / 2][j % 2 * 2 + 1]);
    }
  }
}

__device__ __forceinline__ void split_tf32(float x, uint32_t& large, uint32_t& small) {
  large = to_tf32(x);
  small = to_tf32(x - __uint_as_float(large));
}

template <class Shape, bool kDeepA, bool kDeepB>
__device__ __forceinline__ void multiply_floats(const Slice<Shape, Shape::kRows, kDeepA>& a,
                                                const Slice<Shape, Shape::kColumns, kDeepB>& b, const Warp& warp,
                                                Accumulators<Shape>& sums) {
  constexpr int kPitchA = Slice<Shape, Shape::kRows, kDeepA>::kPitch;
  constexpr int kPitchB = Slice<Shape, Shape::kColumns, kDeepB>::kPitch;
#pragma unroll 1  // two at once do not fit the registers
  for (int depth = 0; depth < Shape::kDepth; depth += 8) {
    uint32_t large[Shape::kFragmentColumns][2], small[Shape::kFragmentColumns][2];
#pragma unroll
    for (int j = 0; j < Shape::kFragmentColumns; ++j)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int column = warp.column + 8 * j + warp.lane / 4, k = depth + warp.lane % 4 + 4 * i;
        split_tf32(b.data[kDeepB ? column * kPitchB + k : k * kPitchB + column], large[j][i], small[j][i]);
      }
#pragma unroll
    for (int m = 0; m < Shape::kFragmentRows; ++m) {
      uint32_t one_large[4], one_small[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = warp.row + 16 * m + warp.lane / 4 + i % 2 * 8, k = depth + warp.lane % 4 + i / 2 * 4;
        split_tf32(a.data[kDeepA ? row * kPitchA + k : k * kPitchA + row], one_large[i], one_small[i]);
      }
#pragma unroll
      for (int j = 0; j < Shape::kFragmentColumns; ++j) {
        float sum[4] = {};
        mma_tf32(sum, one_small, large[j][0], large[j][1]);
        mma_tf32(sum, one_large, small[j][0], small[j][1]);
        mma_tf32(sum, one_large, large[j][0], large[j][1]);
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[m][j][i] += sum[i];
      }
    }
  }
}

// kDeepA, kDeepB: see Slice. What kernels have in shared memory.
template <class Shape, bool kDeepA, bool kDeepB>
struct Stage {
  Slice<Shape, Shape::kRows, kDeepA> a;
  Slice<Shape, Shape::kColumns, kDeepB> b;
};

// sums = the product of `slices` slices, which load(number, stage) asks for in their order.
template <class Shape, bool kDeepA, bool kDeepB, class Load>
__device__ __forceinline__ void multiply_all(Stage<Shape, kDeepA, kDeepB>* stages, int64_t slices, const Warp& warp,
                                             Load&& load, Accumulators<Shape>& sums) {
  for (int slice = 0; slice < Shape::kStages - 1; ++slice) {
    if (slice < slices) load(slice, stages[slice]);
    cp_async_commit();
  }
  int current = 0, free = Shape::kStages - 1;
  for (int64_t slice = 0; slice < slices; ++slice) {
    cp_async_wait<Shape::kStages - 2>();
    __syncthreads();  // the slice is there, and nobody reads the stage that is filled next
    if (slice + Shape::kStages - 1 < slices) load(slice + Shape::kStages - 1, stages[free]);
    cp_async_commit();
    if constexpr (sizeof(typename Shape::T) == 2)
      multiply_slices<Shape>(stages[current].a, stages[current].b, warp, sums);
    else
      multiply_floats<Shape>(stages[current].a, stages[current].b, warp, sums);
    free = current;
    current = current + 1 < Shape::kStages ? current + 1 : 0;
  }
}

}  // namespace pygen
