// |(x - centre) U|^2 on the GPU: squares of a product that is never written.
//
// float: x - centre is formed in float32, each operand is the sum of two numbers in TF32, and a product that of three
// on tensor cores; fast: it is one of operands rounded to TF32. These round sums towards zero: at every eight terms
// they enter a sum that rounds to nearest. double: tensor cores, too, where there are any for float64.
#pragma once
#include "double_tile.cuh"

namespace pygen {

// Columns that are zero from somewhere on are skipped by strips of so many: a warp's.
constexpr int kStrip = 32;
constexpr int kPrepareThreads = 256;
// Blocks take so many tiles of rows by one Gaussian, then by the next: the rows stay in the second-level cache, and
// each factor is fetched for a few thousand rows.
constexpr int kTogether = 16;

// Rows, and K Gaussians.
template <class T, class Out>
struct Whitening {
  const T* x;
  int64_t n, size;
  const int64_t *rows, *counts;  // [K, n] and [K]: the first counts[k] of rows[k] are meant by Gaussian k; null: all
  const T *centre, *rest;        // [K, size]; what a centre in T leaves of one in float64, or null
  const T* factor;               // [K, size, columns]
  const int64_t* heights;        // [K, strips]
  int64_t columns, components;
  const double* constant;  // [K]: the result is constant - norm / 2; null: the norm
  Out* out;                // [K, n]
};

__host__ __device__ inline int64_t strips(int64_t columns) { return (columns + kStrip - 1) / kStrip; }

// The tile of rows that a block takes, and for which Gaussian.
struct Place {
  int64_t k, tile;
};
__device__ __forceinline__ Place place_of_block(int64_t components) {
  const int64_t block = blockIdx.x, group = block / kTogether;
  return {group % components, group / components * kTogether + block % kTogether};
}

// heights [K, strips]: one more than the last row that is not all zero. A block takes a strip of `columns`, spread
// evenly over those of a factor [size, stride] up to its last, and copies it unless `copy` is null.
template <class From, class To>
__global__ void __launch_bounds__(kPrepareThreads)
    prepare_factor_kernel(const From* __restrict__ factor, int64_t size, int64_t stride, int64_t columns,
                          int64_t* heights, To* copy) {
  constexpr int kWarps = kPrepareThreads / 32;
  int64_t* lasts = static_shared<int64_t[kWarps]>();
  const int64_t number = strips(columns), k = blockIdx.x / number;
  const int64_t column = blockIdx.x % number * kStrip + threadIdx.x % 32;
  const int64_t source = (column + 1) * stride / columns - 1;
  int64_t last = 0;
  if (column < columns)
    for (int64_t row = threadIdx.x / 32; row < size; row += kWarps) {
      const From value = factor[(k * size + row) * stride + source];
      if (copy != nullptr) copy[(k * size + row) * columns + column] = static_cast<To>(value);
      if (value != 0) last = row + 1;
    }
  for (int bits = 16; bits > 0; bits /= 2) last = max(last, __shfl_xor_sync(0xFFFFFFFF, last, bits));
  if (threadIdx.x % 32 == 0) lasts[threadIdx.x / 32] = last;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int warp = 1; warp < kWarps; ++warp) last = max(last, lasts[warp]);
  heights[blockIdx.x] = last;
}

// Slices of a factor, by tiles of columns and in each as deep as it is not zero.
template <int kColumns, int kDepth>
struct Walk {
  const int64_t* heights;
  int columns, column = 0, begin = 0, end;

  __device__ __forceinline__ Walk(const int64_t* of_strips, int64_t number)
      : heights(of_strips), columns(static_cast<int>(number)), end(height()) {
    skip();
  }
  __device__ __forceinline__ int height() const {
    int most = 0;
    for (int c = column; c < column + kColumns && c < columns; c += kStrip)
      most = max(most, static_cast<int>(__ldg(heights + c / kStrip)));
    return most;
  }
  __device__ __forceinline__ void skip() {
    while (begin >= end && column < columns) {
      column += kColumns;
      begin = 0;
      end = height();
    }
  }
  __device__ __forceinline__ bool done() const { return column >= columns; }
  __device__ __forceinline__ void next() {
    begin += kDepth;
    skip();
  }
};

template <class T, class Out>
__device__ __forceinline__ int64_t number_of_rows(const Whitening<T, Out>& a, int64_t k) {
  return a.rows == nullptr ? a.n : a.counts[k];
}
template <class T, class Out>
__device__ __forceinline__ int64_t row_at(const Whitening<T, Out>& a, int64_t k, int64_t i) {
  return a.rows == nullptr ? i : a.rows[k * a.n + i];
}

template <class T, class Out>
__device__ __forceinline__ void store_norm(const Whitening<T, Out>& a, int64_t k, int64_t row, double norm) {
  a.out[k * a.n + row] = static_cast<Out>(a.constant == nullptr ? norm : a.constant[k] - 0.5 * norm);
}

// ---- float ---------------------------------------------------------------------------------------------------------

// A warp multiplies 64 rows by a strip, which takes some 200 registers: two blocks are on a multiprocessor, and no more
// columns in one than a small factor has. Strides keep what a warp reads at a time in different banks.
struct WhitenTraits {
  static constexpr int kThreads = 128, kRows = 128, kColumns = 64, kDepth = 16, kStages = 3;
  static constexpr int kRowStride = kDepth + 4, kColumnStride = kColumns + 8;
  static constexpr int kWarpRows = 64, kWarpsDown = kRows / kWarpRows, kWarpsAcross = kColumns / kStrip;
};

struct WhitenShared {
  struct Stage {
    float x[WhitenTraits::kRows * WhitenTraits::kRowStride];
    float factor[WhitenTraits::kDepth * WhitenTraits::kColumnStride];
    float centre[2][WhitenTraits::kDepth];  // and what it leaves
  } stages[WhitenTraits::kStages];
  double norms[WhitenTraits::kWarpsAcross][WhitenTraits::kRows];
};

// Copies [height, width] of a matrix, whose rows begin at `from(row)`, to rows `kStride` apart, zeros beyond its `rows`
// and `columns`. kWhole: by 16 bytes, to which all is aligned.
template <int kHeight, int kWidth, int kStride, bool kWhole, class From>
__device__ __forceinline__ void load_part(const From& from, int rows, int columns, float* to) {
  constexpr int kWide = kWhole ? 4 : 1, kAcross = kWidth / kWide, kStep = WhitenTraits::kThreads / kAcross;
  const int row = threadIdx.x / kAcross, column = threadIdx.x % kAcross * kWide;
  to += row * kStride + column;
#pragma unroll(kWhole ? kHeight / kStep : 1)  // more addresses at once than there are registers for
  for (int i = 0; i < kHeight; i += kStep, to += kStep * kStride)
    cp_async<4 * kWide>(to, from(row + i) + column, row + i < rows && column < columns);
}

struct Split {
  uint32_t large, small;
};
__device__ __forceinline__ Split split(float x) {
  const uint32_t large = to_tf32(x);
  return {large, to_tf32(x - __uint_as_float(large))};
}

using WhitenSums = float[WhitenTraits::kWarpRows / 16][kStrip / 8][4];

// Adds eight terms, from `k` of the slice on, to a warp's sums.
template <bool kFast>
__device__ __forceinline__ void multiply_eight(const WhitenShared::Stage& stage, int k, int row, int column,
                                               WhitenSums& sums) {
  using W = WhitenTraits;
  const int group = threadIdx.x % 32 / 4;
  k += threadIdx.x % 4;
  Split b[kStrip / 8][2];
  for (int n = 0; n < kStrip / 8; ++n)
    for (int i = 0; i < 2; ++i) b[n][i] = split(stage.factor[(k + 4 * i) * W::kColumnStride + column + 8 * n + group]);
  for (int m = 0; m < W::kWarpRows / 16; ++m) {
    uint32_t large[4], small[4];
    for (int i = 0; i < 4; ++i) {
      const int at = k + i / 2 * 4;
      const float x = stage.x[(row + 16 * m + i % 2 * 8 + group) * W::kRowStride + at];
      const Split a = split(x - stage.centre[0][at] - stage.centre[1][at]);
      large[i] = a.large;
      small[i] = a.small;
    }
    float terms[kStrip / 8][4] = {};
    if constexpr (!kFast) {
      for (int n = 0; n < kStrip / 8; ++n) mma_tf32(terms[n], small, b[n][0].large, b[n][1].large);
      for (int n = 0; n < kStrip / 8; ++n) mma_tf32(terms[n], large, b[n][0].small, b[n][1].small);
    }
    for (int n = 0; n < kStrip / 8; ++n) mma_tf32(terms[n], large, b[n][0].large, b[n][1].large);
    for (int n = 0; n < kStrip / 8; ++n)
      for (int i = 0; i < 4; ++i) sums[m][n][i] += terms[n][i];
  }
}

// Adds the squares of a warp's sums to norms, of its strip and rows, and clears them. One lane of four has a row's.
__device__ __forceinline__ void add_squares(WhitenSums& sums, double* norms) {
  for (int m = 0; m < WhitenTraits::kWarpRows / 16; ++m)
    for (int i = 0; i < 2; ++i) {
      float total = 0;
      for (int n = 0; n < kStrip / 8; ++n)
        for (int j = 0; j < 2; ++j) {
          float& sum = sums[m][n][2 * i + j];
          total = fmaf(sum, sum, total);
          sum = 0;
        }
      for (int bits = 1; bits < 4; bits *= 2) total += __shfl_xor_sync(0xFFFFFFFF, total, bits);
      if (threadIdx.x % 4 == 0) norms[16 * m + 8 * i + threadIdx.x % 32 / 4] += total;
    }
}

template <class Out, bool kWhole, bool kFast>
__global__ void __launch_bounds__(WhitenTraits::kThreads, 2) whiten_kernel(Whitening<float, Out> a) {
  using W = WhitenTraits;
  WhitenShared& shared = *shared_memory<WhitenShared>();
  const Place place = place_of_block(a.components);
  const int64_t k = place.k, first = place.tile * W::kRows, left_rows = number_of_rows(a, k) - first;
  if (left_rows <= 0) return;
  const int count = left_rows < W::kRows ? static_cast<int>(left_rows) : W::kRows;
  const int64_t* heights = a.heights + k * strips(a.columns);
  const float* factor = a.factor + k * a.size * a.columns;
  Walk<W::kColumns, W::kDepth> loading(heights, a.columns), walk = loading;
  const auto load = [&](WhitenShared::Stage& stage) {
    if (!loading.done()) {
      const int begin = loading.begin, column = loading.column, left = static_cast<int>(a.size) - begin;
      load_part<W::kRows, W::kDepth, W::kRowStride, kWhole>(
          [&](int row) { return a.x + (row < count ? row_at(a, k, first + row) : 0) * a.size + begin; }, count, left,
          stage.x);
      load_part<W::kDepth, W::kColumns, W::kColumnStride, kWhole>(
          [&](int row) { return factor + int64_t{begin + row} * a.columns + column; }, left, loading.columns - column,
          stage.factor);
      const int part = threadIdx.x / W::kDepth, own = threadIdx.x % W::kDepth;
      const float* centre = part == 0 ? a.centre : a.rest;
      if (part < 2) {
        const bool valid = centre != nullptr && own < left;
        cp_async<4>(stage.centre[part] + own, valid ? centre + k * a.size + begin + own : a.centre, valid);
      }
      loading.next();
    }
    cp_async_commit();
  };
  for (int stage = 0; stage < W::kStages - 1; ++stage) load(shared.stages[stage]);
  const int warp = threadIdx.x / 32, across = warp / W::kWarpsDown, row = warp % W::kWarpsDown * W::kWarpRows;
  double* norms = shared.norms[across] + row;
  if (threadIdx.x % 4 == 0)
    for (int i = threadIdx.x % 32 / 4; i < W::kWarpRows; i += 8) norms[i] = 0;
  WhitenSums sums = {};
#pragma unroll 1
  for (int at = 0; !walk.done(); at = (at + 1) % W::kStages) {
    cp_async_wait<W::kStages - 2>();
    __syncthreads();
    load(shared.stages[(at + W::kStages - 1) % W::kStages]);
    const int column = walk.column, strip = column / kStrip + across;
    if (strip * kStrip < walk.columns && walk.begin < __ldg(heights + strip)) {
#pragma unroll 1  // both at once take more registers than there are
      for (int i = 0; i < W::kDepth; i += 8) multiply_eight<kFast>(shared.stages[at], i, row, across * kStrip, sums);
    }
    walk.next();
    if (walk.column != column) add_squares(sums, norms);
  }
  __syncthreads();
  if (static_cast<int>(threadIdx.x) >= count) return;
  double norm = 0;
  for (int i = 0; i < W::kWarpsAcross; ++i) norm += shared.norms[i][threadIdx.x];
  store_norm(a, k, row_at(a, k, first + threadIdx.x), norm);
}

// ---- double --------------------------------------------------------------------------------------------------------

struct DoubleShared {
  DoubleSlice slice;
  double norms[2][DoubleTraits::kSide];
};

__global__ void __launch_bounds__(DoubleTraits::kThreads) whiten_double_kernel(Whitening<double, double> a) {
  using D = DoubleTraits;
  DoubleShared& shared = static_shared<DoubleShared>();
  const Place place = place_of_block(a.components);
  const int64_t k = place.k, first = place.tile * D::kSide, left = number_of_rows(a, k) - first;
  if (left <= 0) return;
  const int count = left < D::kSide ? static_cast<int>(left) : D::kSide, own = threadIdx.x;
  const double *factor = a.factor + k * a.size * a.columns, *centre = a.centre + k * a.size;
  const int lane = threadIdx.x % 32;
  double* norms = shared.norms[threadIdx.x / 32 % 2] + double_row();
  if (lane % 4 == 0)
    for (int m = 0; m < kEighths; ++m) norms[8 * m + lane / 4] = 0;
  DoubleSums sums = {};
  for (Walk<D::kSide, D::kDepth> walk(a.heights + k * strips(a.columns), a.columns); !walk.done();) {
    const int64_t column = walk.column;
    for (int i = threadIdx.x; i < D::kSide * D::kDepth; i += D::kThreads) {
      const int row = i / D::kDepth;
      const int64_t feature = walk.begin + i % D::kDepth;
      shared.slice.a[i % D::kDepth][row] =
          row < count && feature < a.size ? a.x[row_at(a, k, first + row) * a.size + feature] - centre[feature] : 0;
      const int64_t depth = walk.begin + i / D::kSide, at = column + i % D::kSide;
      shared.slice.b[i / D::kSide][i % D::kSide] =
          depth < a.size && at < a.columns ? factor[depth * a.columns + at] : 0;
    }
    __syncthreads();
    multiply(shared.slice, sums);
    __syncthreads();
    walk.next();
    if (walk.column == column) continue;
    for (int m = 0; m < kEighths; ++m) {
      double total = 0;
      for (int n = 0; n < kEighths; ++n)
        for (double& sum : sums[m][n]) {
          total = fma(sum, sum, total);
          sum = 0;
        }
      for (int bits = 1; bits < 4; bits *= 2) total += __shfl_xor_sync(0xFFFFFFFF, total, bits);
      if (lane % 4 == 0) norms[8 * m + lane / 4] += total;
    }
  }
  __syncthreads();
  if (own < count) store_norm(a, k, row_at(a, k, first + own), shared.norms[0][own] + shared.norms[1][own]);
}

}  // namespace pygen
