// Rows x = mean + L eps on the GPU. Rows of one component form tiles, whose noise is drawn once into a workspace, in
// the order of the tiles, and multiplied by the factor, of which only the lower triangle is read. To draw where it is
// multiplied would repeat the 180 instructions of four draws for every tile of columns, here four times on average.
//
// float: each number is the sum of two of 11 bits in half precision, and a product that of three on tensor cores, as
// accurate as three in TF32 and twice as fast (H. Ootomo, R. Yokota: Recovering single precision accuracy from Tensor
// Cores while surpassing the FP32 theoretical peak performance, 2022). Powers of two keep both parts in half's range.
// double: fused multiply-adds.
#pragma once
#include "../ptx.h"
#include "kernel.cuh"

namespace pygen {

constexpr int kTileRows = 128;
constexpr int kFactorThreads = 256;

// kDepth: columns of noise that are multiplied at a time, and what a row of the workspace is a multiple of.
// kGroup: columns that a thread draws at a time. kColumns: of a tile of the result.
template <class T>
struct FactorTraits;
// A slice of a row is 128 bytes: one for all banks.
template <>
struct FactorTraits<float> {
  static constexpr int kDepth = 32, kGroup = 8, kColumns = 128;
};
template <>
struct FactorTraits<double> {
  static constexpr int kDepth = 16, kGroup = 4, kColumns = 64;
};

// Rows order[first, first + count), all of one component.
struct Tile {
  int64_t first;
  int component, count;
};

// Of an operation on the rows of `out`, grouped by component. factors: [components or 1, size, size].
template <class T>
struct FactorGaussians {
  const int64_t* order;  // of the rows, sorted by component
  const Tile* tiles;
  const T *means, *factors;
  int64_t size, factor_stride;
  T* out;
};

inline int64_t number_of_tiles(int64_t n, int64_t components) { return n / kTileRows + components; }

// A component's tiles begin at starts[k] / kTileRows + k, which leaves room enough and needs no sum over components.
__device__ __forceinline__ int64_t first_tile(const int64_t* starts, int64_t k) { return starts[k] / kTileRows + k; }

// starts [components + 1]: where each component begins in the sorted index.
__global__ void __launch_bounds__(kFactorThreads)
    starts_kernel(const int64_t* __restrict__ sorted, int64_t n, int64_t components, int64_t* starts) {
  const int64_t k = int64_t{blockIdx.x} * kFactorThreads + threadIdx.x;
  if (k > components) return;
  int64_t begin = 0, end = n;
  while (begin < end) {
    const int64_t middle = (begin + end) / 2;
    if (sorted[middle] < k)
      begin = middle + 1;
    else
      end = middle;
  }
  starts[k] = begin;
}

__global__ void __launch_bounds__(kFactorThreads)
    tiles_kernel(const int64_t* __restrict__ starts, int64_t components, int64_t n_tiles, Tile* tiles) {
  const int64_t t = int64_t{blockIdx.x} * kFactorThreads + threadIdx.x;
  if (t >= n_tiles) return;
  int64_t k = 0, end = components;  // the last component that begins at t or before
  while (end - k > 1) {
    const int64_t middle = (k + end) / 2;
    if (first_tile(starts, middle) <= t)
      k = middle;
    else
      end = middle;
  }
  const int64_t first = starts[k] + (t - first_tile(starts, k)) * kTileRows, left = starts[k + 1] - first;
  const int count = left < 0 ? 0 : left < kTileRows ? static_cast<int>(left) : kTileRows;
  tiles[t] = {first, static_cast<int>(k), count};
}

__device__ __forceinline__ float power_of_two(int exponent) {
  return __uint_as_float(static_cast<uint32_t>(exponent + 127) << 23);
}

constexpr int kNoiseExponent = 8;    // noise below 7 becomes one below 2000, its parts exact to 2^-32
constexpr int kFactorExponent = 13;  // the largest number of a factor's row: below 2^14

// Eight numbers as their larger parts, 16 bytes, and their smaller ones.
__device__ __forceinline__ void store_split(const float (&x)[8], float* to) {
  alignas(16) uint32_t large[4], small[4];
  for (int i = 0; i < 8; i += 2) {
    const __half low = __float2half_rn(x[i]), high = __float2half_rn(x[i + 1]);
    large[i / 2] = pack_half(__half2float(low), __half2float(high));
    small[i / 2] = pack_half(x[i] - __half2float(low), x[i + 1] - __half2float(high));
  }
  reinterpret_cast<int4*>(to)[0] = *reinterpret_cast<const int4*>(large);
  reinterpret_cast<int4*>(to)[1] = *reinterpret_cast<const int4*>(small);
}

__device__ __forceinline__ void store_noise(float (&x)[8], float* to) {
  for (int i = 0; i < 8; ++i) x[i] *= power_of_two(kNoiseExponent);
  store_split(x, to);
}
__device__ __forceinline__ void store_noise(double (&x)[4], double* to) { store_four(x, to); }

// noise [n_tiles, kTileRows, depth]: a thread draws one group of columns of a row.
template <class T, bool kFast>
__global__ void __launch_bounds__(kFactorThreads)
    noise_kernel(const int64_t* __restrict__ state, const int64_t* __restrict__ order, const Tile* __restrict__ tiles,
                 unsigned n_tiles, int64_t size, unsigned depth, T* __restrict__ noise) {
  constexpr unsigned kGroup = FactorTraits<T>::kGroup;
  const State start = {static_cast<uint64_t>(state[0]), static_cast<uint64_t>(state[1])};
  const unsigned groups = depth / kGroup, item = blockIdx.x * kFactorThreads + threadIdx.x, slot = item / groups;
  if (slot >= n_tiles * kTileRows) return;
  const Tile tile = tiles[slot / kTileRows];
  if (static_cast<int>(slot % kTileRows) >= tile.count) return;
  const int64_t row = order[tile.first + slot % kTileRows], width = (size + 3) / 4;
  const unsigned column = item % groups * kGroup;
  T eps[kGroup];
  for (unsigned i = 0; i < kGroup; i += 4) {
    T draws[4] = {};
    if (column + i < size) draw<kFast>(start, static_cast<uint64_t>(row * width + (column + i) / 4), draws);
    for (unsigned j = 0; j < 4; ++j) eps[i + j] = column + i + j < size ? draws[j] : T{0};
  }
  store_noise(eps, noise + int64_t{slot} * depth + column);
}

// Splits the rows of all factors that are needed: a warp takes one. inverses: what undoes a row's power of two and that
// of the noise.
__global__ void __launch_bounds__(kFactorThreads)
    split_factor_kernel(const float* __restrict__ factors, int64_t n_factors, int64_t size, int depth,
                        const int64_t* __restrict__ starts, float* __restrict__ split, float* __restrict__ inverses) {
  const int64_t i = (int64_t{blockIdx.x} * kFactorThreads + threadIdx.x) / 32, k = i / size, last = i % size;
  const int lane = threadIdx.x % 32;
  if (k >= n_factors || (n_factors > 1 && starts[k] == starts[k + 1])) return;
  const float* row = factors + i * size;
  float most = 0;
  for (int64_t j = lane; j <= last; j += 32) most = fmaxf(most, fabsf(row[j]));
  for (int bits = 16; bits > 0; bits /= 2) most = fmaxf(most, __shfl_xor_sync(0xFFFFFFFF, most, bits));
  // A row of zeros and numbers below the smallest normal one have the least exponent; what is not finite stays so.
  const int exponent = static_cast<int>(__float_as_uint(most) >> 23) - 127;
  const int up = kFactorExponent - exponent < 118 ? kFactorExponent - exponent : 118;
  if (lane == 0) inverses[i] = power_of_two(-up - kNoiseExponent);
  for (int begin = 8 * lane; begin < depth; begin += 8 * 32) {
    float x[8];
    for (int j = 0; j < 8; ++j) x[j] = begin + j <= last ? row[begin + j] * power_of_two(up) : 0.0f;
    store_split(x, split + i * depth + begin);
  }
}

// ---- float: products on tensor cores -------------------------------------------------------------------------------

// Two slices are on their way while a third is multiplied: 96 KB, which every multiprocessor has.
constexpr int kStages = 3;
// Blocks on a multiprocessor: Hopper's has shared memory for two, and they need no more registers than there are.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900
constexpr int kProductBlocks = 2;
#else
constexpr int kProductBlocks = 1;
#endif

// A warp's part of the tile: eight warps make it up.
constexpr int kWarpRows = 64, kWarpColumns = 32, kWarpsAcross = 4;
constexpr int kSliceBytes = FactorTraits<float>::kDepth * 4;
struct Stage {
  unsigned char noise[kTileRows * kSliceBytes], factor[FactorTraits<float>::kColumns * kSliceBytes];
};
constexpr int kFactorSharedBytes = kStages * sizeof(Stage);

// 16 bytes of a slice: eight columns take two such, the larger parts and the smaller. Eight rows' chunks of one number
// lie in different banks.
__device__ __forceinline__ int chunk_at(int row, int chunk) { return row * kSliceBytes + (chunk ^ (row & 7)) * 16; }

// This thread's chunks of a slice: `from` is the first of them, further ones are kRowsApart rows below, and from row
// `count` of the tile on there are zeros.
__device__ __forceinline__ void load_slice(const unsigned char* from, int stride, int count, unsigned char* to) {
  constexpr int kChunks = kSliceBytes / 16, kRowsApart = kFactorThreads / kChunks;
  static_assert(kRowsApart % 8 == 0, "so that all lie in the same banks");
  const int row = threadIdx.x / kChunks;
  to += chunk_at(row, threadIdx.x % kChunks);
  for (int i = 0; i < kTileRows / kRowsApart; ++i)
    cp_async<16>(to + i * kRowsApart * kSliceBytes, from + i * kRowsApart * stride, row + i * kRowsApart < count);
}

// Adds the products of 16 columns of noise, the `half` of a slice, to a warp's sums. Not on the tensor cores, which
// round towards zero: the error would grow with the number of columns instead of its root.
__device__ __forceinline__ void multiply_half(const Stage& stage, int half, int row, int column,
                                              float (&sums)[kWarpRows / 16][kWarpColumns / 8][4]) {
  const int matrix = threadIdx.x % 32 / 8, line = threadIdx.x % 8;
  uint32_t factor[2][kWarpColumns / 16][4];
  for (int part = 0; part < 2; ++part)
    for (int n = 0; n < kWarpColumns / 16; ++n)
      ldmatrix(factor[part][n],
               stage.factor + chunk_at(column + 16 * n + matrix / 2 * 8 + line, 4 * half + matrix % 2 * 2 + part));
#pragma unroll
  for (int m = 0; m < kWarpRows / 16; ++m) {
    uint32_t noise[2][4];
    for (int part = 0; part < 2; ++part)
      ldmatrix(noise[part],
               stage.noise + chunk_at(row + 16 * m + matrix % 2 * 8 + line, 4 * half + matrix / 2 * 2 + part));
#pragma unroll
    for (int n = 0; n < kWarpColumns / 8; ++n) {
      const uint32_t *large = factor[0][n / 2] + n % 2 * 2, *small = factor[1][n / 2] + n % 2 * 2;
      float products[4] = {};
      mma_half(products, noise[1], large[0], large[1]);
      mma_half(products, noise[0], small[0], small[1]);
      mma_half(products, noise[0], large[0], large[1]);
      for (int i = 0; i < 4; ++i) sums[m][n][i] += products[i];
    }
  }
}

// Where a block's tile of columns begins: those with the longest sums first.
__device__ __forceinline__ int64_t first_column(int columns) { return int64_t{gridDim.x - 1 - blockIdx.x} * columns; }

// Adds the mean to a warp's sums, from `row` and `column` of the tile on, and writes them.
__device__ __forceinline__ void store_sums(const FactorGaussians<float>& a, const float* inverses, int row, int column,
                                           const float (&sums)[kWarpRows / 16][kWarpColumns / 8][4]) {
  const Tile tile = a.tiles[blockIdx.y];
  const int64_t first = first_column(FactorTraits<float>::kColumns) + column + threadIdx.x % 4 * 2;
  const float* means = a.means + tile.component * a.size;
  if (a.factor_stride != 0) inverses += tile.component * a.size;
  float* out[kWarpRows / 8];  // this thread's rows, null beyond the tile's last
  for (int i = 0; i < kWarpRows / 8; ++i) {
    const int in_tile = row + 8 * i + threadIdx.x % 32 / 4;
    out[i] = in_tile < tile.count ? a.out + a.order[tile.first + in_tile] * a.size : nullptr;
  }
#pragma unroll
  for (int n = 0; n < kWarpColumns / 8; ++n)
    for (int j = 0; j < 2; ++j) {
      const int64_t to = first + 8 * n + j;
      if (to >= a.size) continue;
      const float inverse = __ldg(inverses + to), mean = __ldg(means + to);
      for (int i = 0; i < kWarpRows / 8; ++i)
        if (out[i]) out[i][to] = sums[i / 2][n][i % 2 * 2 + j] * inverse + mean;
    }
}

// noise, split: as noise_kernel and split_factor_kernel write them. A block multiplies a tile of rows by a tile of
// columns.
__global__ void __launch_bounds__(kFactorThreads, kProductBlocks)
    half_product_kernel(FactorGaussians<float> a, const float* __restrict__ noise, const float* __restrict__ split,
                        const float* __restrict__ inverses, int depth) {
  constexpr int kDepth = FactorTraits<float>::kDepth, kColumns = FactorTraits<float>::kColumns;
  if (a.tiles[blockIdx.y].count == 0) return;
  const int64_t first = first_column(kColumns), factor = a.factor_stride == 0 ? 0 : a.tiles[blockIdx.y].component;
  const int below = a.size - first < kColumns ? static_cast<int>(a.size - first) : kColumns;
  const int end = first + kColumns < depth ? static_cast<int>(first) + kColumns : depth, steps = end / kDepth;
  const int stride = depth * 4, own = threadIdx.x / 8 * stride + threadIdx.x % 8 * 16;
  auto* noise_bytes = reinterpret_cast<const unsigned char*>(noise + int64_t{blockIdx.y} * kTileRows * depth) + own;
  auto* split_bytes = reinterpret_cast<const unsigned char*>(split + (factor * a.size + first) * depth) + own;
  Stage* stages = shared_memory<Stage>();
  const auto load = [&](int step, int at) {
    if (step < steps) {
      // Rows beyond the tile's last hold anything: no sum of theirs is written.
      load_slice(noise_bytes + step * kSliceBytes, stride, kTileRows, stages[at].noise);
      load_slice(split_bytes + step * kSliceBytes, stride, below, stages[at].factor);
    }
    cp_async_commit();
  };
  for (int step = 0; step < kStages - 1; ++step) load(step, step);
  const int warp = threadIdx.x / 32, row = warp / kWarpsAcross * kWarpRows, column = warp % kWarpsAcross * kWarpColumns;
  // Above the diagonal and beyond the last column there is nothing to add.
  const int own_steps = column < below ? static_cast<int>(first + column) / kDepth + 1 : 0;
  float sums[kWarpRows / 16][kWarpColumns / 8][4] = {};
#pragma unroll 1
  for (int step = 0, at = 0; step < steps; ++step) {
    cp_async_wait<kStages - 2>();
    __syncthreads();
    load(step + kStages - 1, at == 0 ? kStages - 1 : at - 1);
    if (step < own_steps)
      for (int half = 0; half < kDepth / 16; ++half) multiply_half(stages[at], half, row, column, sums);
    at = at + 1 < kStages ? at + 1 : 0;
  }
  store_sums(a, inverses, row, column, sums);
}

// ---- double --------------------------------------------------------------------------------------------------------

// One number more than a row: neighbours in a column lie in different banks.
struct DoubleStage {
  double noise[FactorTraits<double>::kDepth][kTileRows + 1];
  double factor[FactorTraits<double>::kDepth][FactorTraits<double>::kColumns + 1];
};

__global__ void __launch_bounds__(kFactorThreads)
    double_product_kernel(FactorGaussians<double> a, const double* __restrict__ noise, int depth) {
  constexpr int kDepth = FactorTraits<double>::kDepth, kColumns = FactorTraits<double>::kColumns;
  constexpr int kAcross = 16, kRows = kTileRows / kAcross, kWide = kColumns / kAcross;
  static_assert(kAcross * kAcross == kFactorThreads && kDepth == kAcross, "a thread loads a column of either slice");
  const Tile tile = a.tiles[blockIdx.y];
  if (tile.count == 0) return;
  const int64_t first = first_column(kColumns);
  const double* factor = a.factors + tile.component * a.factor_stride;
  noise += int64_t{blockIdx.y} * kTileRows * depth;
  DoubleStage& stage = static_shared<DoubleStage>();
  const int x = threadIdx.x % kAcross, y = threadIdx.x / kAcross;
  const int64_t end = first + kColumns < a.size ? first + kColumns : a.size;
  double sums[kRows][kWide] = {};
  for (int64_t begin = 0; begin < end; begin += kDepth) {
    const int64_t k = begin + x;
    for (int row = y; row < kTileRows; row += kAcross)
      stage.noise[x][row] = row < tile.count ? noise[int64_t{row} * depth + k] : 0;
    for (int column = y; column < kColumns; column += kAcross)
      stage.factor[x][column] =
          first + column < a.size && k <= first + column ? factor[(first + column) * a.size + k] : 0;
    __syncthreads();
    for (int j = 0; j < kDepth; ++j) {
      double columns[kWide];
      for (int w = 0; w < kWide; ++w) columns[w] = stage.factor[j][x + w * kAcross];
      for (int r = 0; r < kRows; ++r) {
        const double eps = stage.noise[j][y + r * kAcross];
        for (int w = 0; w < kWide; ++w) sums[r][w] = fma(eps, columns[w], sums[r][w]);
      }
    }
    __syncthreads();
  }
  for (int r = 0; r < kRows; ++r) {
    const int row = y + r * kAcross;
    if (row >= tile.count) continue;
    double* out = a.out + a.order[tile.first + row] * a.size;
    for (int w = 0; w < kWide; ++w) {
      const int64_t to = first + x + w * kAcross;
      if (to < a.size) out[to] = sums[r][w] + __ldg(a.means + tile.component * a.size + to);
    }
  }
}

// The rows of no component.
template <class T>
__global__ void __launch_bounds__(kFactorThreads)
    unknown_rows_kernel(const int64_t* __restrict__ sorted, const int64_t* __restrict__ order, int64_t n,
                        int64_t components, int64_t size, T* out) {
  const int64_t i = int64_t{blockIdx.x} * kFactorThreads + threadIdx.x;
  if (i >= n || is_known(sorted[i], components)) return;
  for (int64_t j = 0; j < size; ++j) out[order[i] * size + j] = not_a_number<T>();
}

}  // namespace pygen
