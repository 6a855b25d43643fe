// Squared distances of rows from centres on the GPU, by differences, in the precision of the rows: a product of
// matrices would lose digits where distances are small beside what rows and centres have in common.
#pragma once
#include "../ptx.h"

namespace pygen {

// A thread has kRowsPer rows, kSide apart, and kCentresPer centres next to one another. kDepth: columns taken at a
// time; kPitch: of a line of them in shared memory, which spreads the lines that eight lanes read over all banks.
// kStages: in flight.
template <class Real, int kRowsPer_, int kCentresPer_, int kSide_, int kBlocks_>
struct DistanceShape {
  using T = Real;
  static constexpr int kRowsPer = kRowsPer_, kCentresPer = kCentresPer_, kSide = kSide_, kThreads = 128;
  static constexpr int kRows = kRowsPer * kSide, kCentres = kCentresPer * (kThreads / kSide);
  static constexpr int kQuad = 16 / sizeof(T), kDepth = 16, kPitch = kDepth + kQuad, kStages = 3, kBlocks = kBlocks_;
};

template <class Shape>
struct DistanceStage {
  typename Shape::T x[Shape::kRows * Shape::kPitch], centres[Shape::kCentres * Shape::kPitch];
};

// Few: every thread has all centres of a block, so that a pass over the rows is what takes the time. Many: 4 (float)
// and 2 (double) operations for each number from shared memory. The last number is that of blocks to a multiprocessor,
// for which Few has the shared memory and Many the registers.
template <class T>
struct DistanceShapes;
template <>
struct DistanceShapes<float> {
  using Few = DistanceShape<float, 2, 8, 128, 3>;
  using Many = DistanceShape<float, 8, 8, 16, 2>;
};
template <>
struct DistanceShapes<double> {
  using Few = DistanceShape<double, 1, 8, 128, 3>;
  using Many = DistanceShape<double, 4, 4, 16, 4>;
};

// x [n, dims]; centres [n_centres, depth] in T, zero beyond dims; depth a multiple of kDepth.
template <class T>
struct DistancesOf {
  const T *x, *centres;
  int64_t n, dims, n_centres, depth;
};

__device__ __forceinline__ float fused(float a, float b, float c) { return fmaf(a, b, c); }
__device__ __forceinline__ double fused(double a, double b, double c) { return fma(a, b, c); }

template <class T, int kNumber>
__device__ __forceinline__ void load_quad(const T* from, T (&to)[kNumber]) {
  static_assert(sizeof to == 16, "16 bytes at once");
  alignas(16) T quad[kNumber];
  *reinterpret_cast<int4*>(quad) = *reinterpret_cast<const int4*>(from);
  for (int i = 0; i < kNumber; ++i) to[i] = quad[i];
}

// kWhole: rows of x are multiples of 16 bytes and begin at such.
template <class Shape, bool kWhole>
__device__ __forceinline__ void load_slice(const DistancesOf<typename Shape::T>& a, int64_t first_row,
                                           int64_t first_centre, int64_t first_column, DistanceStage<Shape>& to) {
  using T = typename Shape::T;
  constexpr int kQuads = Shape::kDepth / Shape::kQuad;
  constexpr int kAtOnce = kWhole ? Shape::kRows * kQuads / Shape::kThreads : 1;
#pragma unroll kAtOnce
  for (int i = 0; i < Shape::kRows * kQuads; i += Shape::kThreads) {
    const int line = (i + threadIdx.x) / kQuads, quad = (i + threadIdx.x) % kQuads * Shape::kQuad;
    const int64_t row = first_row + line, column = first_column + quad;
    T* x_to = to.x + line * Shape::kPitch + quad;
    const T* x = a.x + (row < a.n ? row * a.dims : 0);
    if (kWhole) {
      const bool inside = row < a.n && column < a.dims;
      cp_async<16>(x_to, x + (inside ? column : 0), inside);
    } else {
      for (int j = 0; j < Shape::kQuad; ++j) {
        const bool inside = row < a.n && column + j < a.dims;
        cp_async<sizeof(T)>(x_to + j, x + (inside ? column + j : 0), inside);
      }
    }
  }
  for (int i = threadIdx.x; i < Shape::kCentres * kQuads; i += Shape::kThreads) {
    const int line = i / kQuads, quad = i % kQuads * Shape::kQuad;
    const bool inside = first_centre + line < a.n_centres;
    cp_async<16>(to.centres + line * Shape::kPitch + quad,
                 a.centres + (inside ? (first_centre + line) * a.depth + first_column + quad : 0), inside);
  }
}

template <class Shape>
__device__ __forceinline__ int row_of_thread() {
  return threadIdx.x % Shape::kSide;
}
template <class Shape>
__device__ __forceinline__ int centre_of_thread() {
  return threadIdx.x / Shape::kSide * Shape::kCentresPer;
}

template <class Shape>
__device__ __forceinline__ void add_slice(const DistanceStage<Shape>& stage,
                                          typename Shape::T (&sums)[Shape::kRowsPer][Shape::kCentresPer]) {
  using T = typename Shape::T;
  const T* x = stage.x + row_of_thread<Shape>() * Shape::kPitch;
  const T* centres = stage.centres + centre_of_thread<Shape>() * Shape::kPitch;
#pragma unroll 1  // the registers of a second one are those of a block
  for (int column = 0; column < Shape::kDepth; column += Shape::kQuad) {
    T centre[Shape::kCentresPer][Shape::kQuad];
#pragma unroll
    for (int j = 0; j < Shape::kCentresPer; ++j) load_quad(centres + j * Shape::kPitch + column, centre[j]);
#pragma unroll
    for (int i = 0; i < Shape::kRowsPer; ++i) {
      T row[Shape::kQuad];
      load_quad(x + i * Shape::kSide * Shape::kPitch + column, row);
#pragma unroll
      for (int j = 0; j < Shape::kCentresPer; ++j) {
#pragma unroll
        for (int d = 0; d < Shape::kQuad; ++d) {
          const T difference = row[d] - centre[j][d];
          sums[i][j] = fused(difference, difference, sums[i][j]);
        }
      }
    }
  }
}

// Distances of this thread's rows and centres, of the block's from `first_row` and `first_centre` on. No thread of the
// block may still be at another call.
template <class Shape, bool kWhole>
__device__ __forceinline__ void measure(const DistancesOf<typename Shape::T>& a, int64_t first_row,
                                        int64_t first_centre, DistanceStage<Shape>* stages,
                                        typename Shape::T (&sums)[Shape::kRowsPer][Shape::kCentresPer]) {
  constexpr int kStages = Shape::kStages;
  for (auto& row : sums)
    for (auto& sum : row) sum = 0;
  const int slices = static_cast<int>(a.depth / Shape::kDepth);
  const bool needed = first_centre + centre_of_thread<Shape>() < a.n_centres;
  for (int slice = 0; slice < kStages - 1; ++slice) {
    if (slice < slices)
      load_slice<Shape, kWhole>(a, first_row, first_centre, int64_t{slice} * Shape::kDepth, stages[slice]);
    cp_async_commit();
  }
  for (int slice = 0; slice < slices; ++slice) {
    cp_async_wait<kStages - 2>();
    __syncthreads();  // the slice is there, and nobody reads the stage that is filled next
    const int next = slice + kStages - 1;
    if (next < slices)
      load_slice<Shape, kWhole>(a, first_row, first_centre, int64_t{next} * Shape::kDepth, stages[next % kStages]);
    cp_async_commit();
    if (needed) add_slice<Shape>(stages[slice % kStages], sums);
  }
}

constexpr int kRoundThreads = 256;

// centres [n_centres, dims] in T, a row being `depth` long, and a copy as they are, unless that is null.
template <class T>
__global__ void __launch_bounds__(kRoundThreads) round_kernel(const double* __restrict__ centres, int64_t n_centres,
                                                              int64_t dims, int64_t depth, T* to, double* copy) {
  const int64_t i = int64_t{blockIdx.x} * kRoundThreads + threadIdx.x, column = i % depth;
  if (i >= n_centres * depth) return;
  const int64_t from = i / depth * dims + column;
  to[i] = column < dims ? static_cast<T>(centres[from]) : T{0};
  if (copy && column < dims) copy[from] = centres[from];
}

// found [n_centres, n]: the smaller of the distance and what the row has.
template <class Shape, bool kWhole>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    closer_kernel(DistancesOf<typename Shape::T> a, const double* __restrict__ closest, double* __restrict__ found) {
  const int64_t first_row = int64_t{blockIdx.x} * Shape::kRows, first_centre = int64_t{blockIdx.y} * Shape::kCentres;
  typename Shape::T sums[Shape::kRowsPer][Shape::kCentresPer];
  measure<Shape, kWhole>(a, first_row, first_centre, shared_memory<DistanceStage<Shape>>(), sums);
#pragma unroll
  for (int i = 0; i < Shape::kRowsPer; ++i) {
    const int64_t row = first_row + row_of_thread<Shape>() + i * Shape::kSide;
    if (row >= a.n) continue;
    const double least = closest[row];
#pragma unroll
    for (int j = 0; j < Shape::kCentresPer; ++j) {
      const int64_t k = first_centre + centre_of_thread<Shape>() + j;
      const double distance = sums[i][j];
      if (k < a.n_centres) found[k * a.n + row] = least < distance ? least : distance;
    }
  }
}

}  // namespace pygen
