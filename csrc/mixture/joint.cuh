// Log joint densities constant_k - sum_d precision_kd (x_nd - mean_kd)^2 / 2 of rows and components on the GPU.
//
// float: the square is expanded about a centre c, the components' mean weighted by precision (pygen/ops/diagonal.py),
// so that it is a product of [x - c, (x - c)^2] and weights, on tensor cores. Each factor is the sum of two TF32
// numbers and a product that of three. Tensor cores truncate when they add, one way: only products of eight features
// are added there, to zero; their sums are added in float, rounded to nearest. Fast: one TF32 number, one product, all
// added there. double: differences by fused multiply-adds.
#pragma once
#include "../ptx.h"

namespace pygen {

// kDepth: features multiplied at a time. kPitch: of a line of them in shared memory, so that the eight lines and four
// columns of a fragment lie in 32 banks. kStages: in flight; two blocks then fit a multiprocessor from sm_80 on.
struct ExpandedTile {
  static constexpr int kRows = 128, kComponents = 64, kDepth = 16, kPitch = 20, kStages = 3, kThreads = 256;
};

struct ExpandedStage {
  float x[ExpandedTile::kRows * ExpandedTile::kPitch];
  float linear[ExpandedTile::kComponents * ExpandedTile::kPitch];
  float square[ExpandedTile::kComponents * ExpandedTile::kPitch];
};

// Weights of x - c and its square: [components, depth], zero beyond dims, as the centre [depth] is.
struct Expansion {
  float *centre, *linear, *square;
  double* constant;  // [components], about the centre
  float* spread;     // [components], see terms_of
  int64_t depth;     // a multiple of kDepth
};

// x [n, dims]; joint [components, stride], of which n columns.
template <class T>
struct Joint {
  const T* x;
  const double *means, *precisions, *constant;
  int64_t n, components, dims;
  T* joint;
  int64_t stride;
};

// More than the absolute terms of a float density add up to. With D^2 and S^2 the squared distances of the row and of
// the centre from the mean, in units of the component's deviations, D^2 = 2 (constant - density): the linear terms are
// at most S (S + D) by Cauchy and Schwarz, the squares (S + D)^2 / 2, both together 3/2 D^2 + 5/2 S^2.
__device__ __forceinline__ float terms_of(float spread, float density) { return spread - 3 * density; }

// What densities may be off by, as a share of those terms. Some ten times what is seen.
constexpr float kShare = 1e-6f;

// Of fast ones, proven: each factor is rounded by 2^-11 of it at most. For eight features a tensor core adds nine
// numbers twice, where it leaves out less than 2^-23 of the largest from each and from their sum.
inline float fast_share(int64_t depth) { return 0x1p-10f + static_cast<float>(depth) * 0x1p-21f; }

constexpr int kPrepareThreads = 128;

__global__ void __launch_bounds__(kPrepareThreads)
    centre_kernel(const double* __restrict__ means, const double* __restrict__ precisions, int64_t components,
                  int64_t dims, Expansion to) {
  const int64_t d = int64_t{blockIdx.x} * kPrepareThreads + threadIdx.x;
  if (d >= to.depth) return;
  double weighted = 0, total = 0;
  for (int64_t k = 0; d < dims && k < components; ++k) {
    const double precision = precisions[k * dims + d];
    weighted += precision * means[k * dims + d];
    total += precision;
  }
  to.centre[d] = d < dims ? static_cast<float>(weighted / total) : 0.0f;
}

// All lanes get the sum of the warp's values.
__device__ __forceinline__ double warp_sum(double value) {
  for (int bits = 16; bits > 0; bits /= 2) value += __shfl_xor_sync(~0u, value, bits);
  return value;
}

// A warp per component.
__global__ void __launch_bounds__(kPrepareThreads)
    expansion_kernel(const double* __restrict__ means, const double* __restrict__ precisions,
                     const double* __restrict__ constant, int64_t components, int64_t dims, Expansion to) {
  const int64_t k = (int64_t{blockIdx.x} * kPrepareThreads + threadIdx.x) / 32;
  if (k >= components) return;
  double sum = 0;
  for (int64_t d = threadIdx.x % 32; d < to.depth; d += 32) {
    const double precision = d < dims ? precisions[k * dims + d] : 0;
    const double shift = d < dims ? means[k * dims + d] - to.centre[d] : 0;
    sum += precision * shift * shift;
    to.linear[k * to.depth + d] = static_cast<float>(precision * shift);
    to.square[k * to.depth + d] = static_cast<float>(-0.5 * precision);
  }
  sum = warp_sum(sum);
  if (threadIdx.x % 32 != 0) return;
  to.constant[k] = constant[k] - 0.5 * sum;
  to.spread[k] = static_cast<float>(2.5 * sum + 3 * constant[k]);
}

// kWhole: rows of x are multiples of 16 bytes and begin at such.
template <bool kWhole>
__device__ __forceinline__ void load_stage(const Joint<float>& a, const Expansion& with, int64_t first_row,
                                           int64_t first_component, int64_t first_column, ExpandedStage& to) {
  using Tile = ExpandedTile;
  constexpr int kQuads = Tile::kDepth / 4, kLines = Tile::kThreads / kQuads;
  static_assert(Tile::kRows % kLines == 0 && Tile::kComponents == kLines, "every thread has as much to load");
  const int line = threadIdx.x / kQuads, place = line * Tile::kPitch + threadIdx.x % kQuads * 4;
  const int64_t column = first_column + threadIdx.x % kQuads * 4;
#pragma unroll
  for (int i = 0; i < Tile::kRows; i += kLines) {
    const int64_t row = first_row + line + i;
    const float* x = a.x + (row < a.n ? row * a.dims : 0);
    float* x_to = to.x + place + i * Tile::kPitch;
    if (kWhole) {
      const bool inside = row < a.n && column < a.dims;
      cp_async<16>(x_to, x + (inside ? column : 0), inside);
    } else {
      for (int j = 0; j < 4; ++j) {
        const bool inside = row < a.n && column + j < a.dims;
        cp_async<4>(x_to + j, x + (inside ? column + j : 0), inside);
      }
    }
  }
  const bool inside = first_component + line < a.components;
  const int64_t from = inside ? (first_component + line) * with.depth + column : 0;
  cp_async<16>(to.linear + place, with.linear + from, inside);
  cp_async<16>(to.square + place, with.square + from, inside);
}

__device__ __forceinline__ void split(float x, uint32_t& large, uint32_t& small) {
  large = to_tf32(x);
  small = to_tf32(x - __uint_as_float(large));
}

// A warp has rows 32 `rows` to 32 `rows` + 31 of the tile, and of its components eights `eights`, `eights` + 2, ...
constexpr int kFragmentRows = 2, kFragmentComponents = 4;

// Adds the products of eight columns, from `column` on, of weights and x less its centres, or the square of that.
template <bool kSquare, bool kFast>
__device__ __forceinline__ void multiply(const float* x_at, const float* weights_at, const float (&centres)[2],
                                         int active, float (&sums)[kFragmentRows][kFragmentComponents][4]) {
  using Tile = ExpandedTile;
  uint32_t large[kFragmentComponents][2], small[kFragmentComponents][2];
#pragma unroll
  for (int j = 0; j < kFragmentComponents; ++j)
    for (int i = 0; i < 2; ++i) split(weights_at[16 * j * Tile::kPitch + 4 * i], large[j][i], small[j][i]);
#pragma unroll
  for (int m = 0; m < kFragmentRows; ++m) {
    uint32_t x_large[4], x_small[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float x = x_at[(m * 16 + i % 2 * 8) * Tile::kPitch + i / 2 * 4] - centres[i / 2];
      split(kSquare ? x * x : x, x_large[i], x_small[i]);
    }
#pragma unroll
    for (int j = 0; j < kFragmentComponents; ++j) {
      if (j >= active) continue;
      if (kFast) {
        mma_tf32(sums[m][j], x_large, large[j][0], large[j][1]);
        continue;
      }
      float sum[4] = {};
      mma_tf32(sum, x_small, large[j][0], large[j][1]);
      mma_tf32(sum, x_large, small[j][0], small[j][1]);
      mma_tf32(sum, x_large, large[j][0], large[j][1]);
      for (int i = 0; i < 4; ++i) sums[m][j][i] += sum[i];
    }
  }
}

// crowded: of each 32 rows, whether their densities are asked for; null: all are. Blocks of the same rows are
// neighbours, which find them in the second-level cache.
template <bool kWhole, bool kFast>
__global__ void __launch_bounds__(ExpandedTile::kThreads, 2)
    expanded_kernel(Joint<float> a, Expansion with, const int* crowded) {
  using Tile = ExpandedTile;
  ExpandedStage* stages = shared_memory<ExpandedStage>();
  const unsigned tiles = static_cast<unsigned>((a.components + Tile::kComponents - 1) / Tile::kComponents);
  const int64_t first_row = int64_t{blockIdx.x / tiles} * Tile::kRows;
  const int64_t first_component = int64_t{blockIdx.x % tiles} * Tile::kComponents;
  // By a shuffle the compiler knows that it is the same in all lanes, and that no product is taken by a part of a warp.
  const int warp = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / 32, 0), lane = threadIdx.x % 32;
  const int rows = warp / 2, eights = warp % 2;
  bool wanted = !crowded, any = !crowded;
  for (int i = 0; crowded && i < Tile::kRows / 32 && first_row + 32 * i < a.n; ++i) {
    if (!crowded[first_row / 32 + i]) continue;
    any = true;
    if (i == rows) wanted = true;
  }
  if (!any) return;
  const int64_t left = (a.components - first_component + 7) / 8 - eights;
  const int active = left < 0 || !wanted ? 0 : static_cast<int>((left + 1) / 2);
  const int slices = static_cast<int>(with.depth / Tile::kDepth);
  float sums[kFragmentRows][kFragmentComponents][4] = {};
  for (int slice = 0; slice < Tile::kStages - 1; ++slice) {
    if (slice < slices) load_stage<kWhole>(a, with, first_row, first_component, slice * Tile::kDepth, stages[slice]);
    cp_async_commit();
  }
  for (int slice = 0; slice < slices; ++slice) {
    cp_async_wait<Tile::kStages - 2>();
    __syncthreads();  // the slice is there, and nobody reads the stage that is filled next
    const int next = slice + Tile::kStages - 1;
    if (next < slices)
      load_stage<kWhole>(a, with, first_row, first_component, int64_t{next} * Tile::kDepth,
                         stages[next % Tile::kStages]);
    cp_async_commit();
    const ExpandedStage& stage = stages[slice % Tile::kStages];
#pragma unroll 1  // two at once do not fit the registers
    for (int depth = 0; depth < Tile::kDepth; depth += 8) {
      const int column = depth + lane % 4;
      const float* centre = with.centre + int64_t{slice} * Tile::kDepth + column;
      const float centres[2] = {__ldg(centre), __ldg(centre + 4)};
      const float* x = stage.x + (rows * 32 + lane / 4) * Tile::kPitch + column;
      const int weights = (eights * 8 + lane / 4) * Tile::kPitch + column;
      multiply<false, kFast>(x, stage.linear + weights, centres, active, sums);
      multiply<true, kFast>(x, stage.square + weights, centres, active, sums);
    }
  }
#pragma unroll
  for (int j = 0; j < kFragmentComponents; ++j) {
    if (j >= active) continue;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int64_t k = first_component + (eights + 2 * j) * 8 + lane % 4 * 2 + i;
      if (k >= a.components) continue;
      const double constant = with.constant[k];
#pragma unroll
      for (int m = 0; m < 2 * kFragmentRows; ++m) {
        const int64_t row = first_row + rows * 32 + m * 8 + lane / 4;
        if (row < a.n) a.joint[k * a.stride + row] = static_cast<float>(constant + sums[m / 2][j][m % 2 * 2 + i]);
      }
    }
  }
}

// A thread has kPer rows and kPer components, kSide apart. One more than a power of two is all banks.
struct DoubleTile {
  static constexpr int kSide = 16, kPer = 4, kLines = kSide * kPer, kDepth = 16, kPitch = kDepth + 1;
  static constexpr int kThreads = kSide * kSide;
  double x[kLines][kPitch], means[kLines][kPitch], precisions[kLines][kPitch];
};

__global__ void __launch_bounds__(DoubleTile::kThreads, 2) difference_kernel(Joint<double> a) {
  using Tile = DoubleTile;
  Tile& tile = static_shared<Tile>();
  const int64_t first_row = int64_t{blockIdx.x} * Tile::kLines, first_component = int64_t{blockIdx.y} * Tile::kLines;
  const int row_of = threadIdx.x % Tile::kSide, component_of = threadIdx.x / Tile::kSide;
  double sums[Tile::kPer][Tile::kPer] = {};
  for (int64_t start = 0; start < a.dims; start += Tile::kDepth) {
    for (int i = threadIdx.x; i < Tile::kLines * Tile::kDepth; i += Tile::kThreads) {
      const int line = i / Tile::kDepth, at = i % Tile::kDepth;
      const int64_t row = first_row + line, k = first_component + line, column = start + at;
      const bool inside = column < a.dims, known = inside && k < a.components;
      tile.x[line][at] = inside && row < a.n ? a.x[row * a.dims + column] : 0;
      tile.means[line][at] = known ? a.means[k * a.dims + column] : 0;
      tile.precisions[line][at] = known ? a.precisions[k * a.dims + column] : 0;
    }
    __syncthreads();
    for (int at = 0; at < Tile::kDepth; ++at) {
      for (int j = 0; j < Tile::kPer; ++j) {
        const double mean = tile.means[component_of + j * Tile::kSide][at];
        const double precision = tile.precisions[component_of + j * Tile::kSide][at];
        for (int i = 0; i < Tile::kPer; ++i) {
          const double difference = tile.x[row_of + i * Tile::kSide][at] - mean;
          sums[i][j] = fma(difference * precision, difference, sums[i][j]);
        }
      }
    }
    __syncthreads();
  }
  for (int j = 0; j < Tile::kPer; ++j) {
    const int64_t k = first_component + component_of + j * Tile::kSide;
    if (k >= a.components) continue;
    for (int i = 0; i < Tile::kPer; ++i) {
      const int64_t row = first_row + row_of + i * Tile::kSide;
      if (row < a.n) a.joint[k * a.stride + row] = a.constant[k] - 0.5 * sums[i][j];
    }
  }
}

}  // namespace pygen
