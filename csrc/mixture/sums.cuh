// Sums of rows by component on the GPU, about the means, in float64: sum_n r_nk (x_nd - mean_kd) and of the squares.
//
// Rows have few components that matter (1.1 of MNIST's), so that a block looks for the rows of one component in a
// segment of the chunk, lists them in shared memory and reads only these: no pairs are sorted, and a dense product of
// float32 would lose the digits of small variances. Each block has sums of its own, to which it adds chunk by chunk;
// they are added up at the end, in a fixed order.
#pragma once
#include "../columns.cuh"
#include "../pair.h"
#include "posterior.cuh"

namespace pygen {

// kScan: rows a thread looks at before they are listed, so many loads in flight. A thread sums four columns.
constexpr int kSumThreads = 256, kScan = 8, kListed = kSumThreads * kScan, kSumColumns = 4 * kSumThreads;

// counts [segments, components], first and second [segments, components, dims].
template <class T>
struct RowSums {
  Joint<T> from;
  const T* base;
  const double* scale;
  int64_t segment;  // rows of a segment
  double *counts, *first, *second;
};

struct ListedRows {
  double weights[kListed];
  int rows[kListed];
};

struct SumShared {
  union {
    ListedRows list;
    double sums[kSumThreads][8];
  };
  double counts[kSumThreads];
  int found[2][kSumThreads / 32];  // by warp; one is read while the other is written
};

// Lists the rows from `begin` on that component k matters for, ascending; a barrier must follow. Gives their number.
template <class T>
__device__ __forceinline__ int list_rows(const RowSums<T>& a, int64_t k, int64_t begin, int64_t end, int turn,
                                         SumShared& shared) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t first = begin + warp * 32 * kScan + lane;
  T relative[kScan];
#pragma unroll
  for (int i = 0; i < kScan; ++i) {
    const int64_t row = first + 32 * i;
    relative[i] = row < end ? a.from.joint[k * a.from.stride + row] - a.base[row] : -INFINITY;
  }
  unsigned votes[kScan];
  int mine = 0;
#pragma unroll
  for (int i = 0; i < kScan; ++i) {
    votes[i] = __ballot_sync(~0u, relative[i] > static_cast<T>(kLogNegligible));
    mine += __popc(votes[i]);
  }
  if (lane == 0) shared.found[turn][warp] = mine;
  __syncthreads();
  int place = 0, all = 0;
  for (int other = 0; other < kSumThreads / 32; ++other) {
    if (other == warp) place = all;
    all += shared.found[turn][other];
  }
#pragma unroll
  for (int i = 0; i < kScan; ++i) {
    if (votes[i] >> lane & 1) {
      const int at = place + __popc(votes[i] & ((1u << lane) - 1));
      const int64_t row = first + 32 * i;
      shared.list.rows[at] = static_cast<int>(row);
      shared.list.weights[at] = exp_of(relative[i]) * a.scale[row];
    }
    place += __popc(votes[i]);
  }
  return all;
}

template <class T, bool kWhole>
__global__ void __launch_bounds__(kSumThreads) sums_kernel(RowSums<T> a) {
  SumShared& shared = static_shared<SumShared>();
  const int64_t k = blockIdx.x, first_column = int64_t{blockIdx.z} * kSumColumns, dims = a.from.dims;
  const int64_t begin = blockIdx.y * a.segment;
  const int64_t end = begin + a.segment < a.from.n ? begin + a.segment : a.from.n;
  // Threads by four columns, as many groups as there is room for, which share the rows. Without columns one counts.
  const int64_t columns = dims - first_column < kSumColumns ? dims - first_column : kSumColumns;
  const int quads = columns > 0 ? static_cast<int>((columns + 3) / 4) : 1, groups = kSumThreads / quads;
  const int group = threadIdx.x / quads, quad = threadIdx.x % quads;
  const int64_t column = first_column + 4 * quad;
  const int count = static_cast<int>(dims - column < 4 ? dims - column : 4);
  double mean[4] = {}, first[4] = {}, second[4] = {}, weights = 0;
#pragma unroll
  for (int j = 0; j < 4; ++j)
    if (j < count) mean[j] = a.from.means[k * dims + column + j];
  bool any = false;
  int turn = 0;
  for (int64_t start = begin; start < end; start += kListed, turn ^= 1) {
    const int listed = list_rows(a, k, start, end, turn, shared);
    if (listed == 0) continue;
    any = true;
    __syncthreads();
#pragma unroll 4
    for (int i = group < groups ? group : listed; i < listed; i += groups) {
      const double weight = shared.list.weights[i];
      double x[4];
      load_columns<kWhole>(a.from.x + shared.list.rows[i] * dims + column, count, x);
      for (int j = 0; j < 4; ++j) {
        const double difference = x[j] - mean[j], weighted = weight * difference;
        first[j] += weighted;
        second[j] = fma(weighted, difference, second[j]);
      }
      weights += weight;
    }
  }
  if (!any) return;
  __syncthreads();
  for (int j = 0; j < 4; ++j) {
    shared.sums[threadIdx.x][j] = first[j];
    shared.sums[threadIdx.x][4 + j] = second[j];
  }
  shared.counts[threadIdx.x] = weights;
  __syncthreads();
  if (group > 0) return;
  for (int other = 1; other < groups; ++other) {
    const int from = other * quads + quad;
    for (int j = 0; j < 4; ++j) {
      first[j] += shared.sums[from][j];
      second[j] += shared.sums[from][4 + j];
    }
    weights += shared.counts[from];
  }
  const int64_t place = blockIdx.y * a.from.components + k;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    if (j >= count) continue;
    a.first[place * dims + column + j] += first[j];
    a.second[place * dims + column + j] += second[j];
  }
  if (quad == 0 && blockIdx.z == 0) a.counts[place] += weights;
}

constexpr int kFinishThreads = 256;

// What is added up at the end, and where it goes. parts: of the log-likelihood, one for each block.
struct Finish {
  const double *precisions, *constant;
  const double *counts, *first, *second, *entropies;
  int64_t segments, components, dims, posterior_blocks;
  double* parts;
  double *counts_out, *first_out, *second_out, *log_likelihood_out;
};

__device__ __forceinline__ double strided_sum(const double* from, int64_t stride, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += from[i * stride];
  return sum;
}

struct FinishShared {
  double sums[kFinishThreads / 32];
};

// The first thread gets the sum of the block's values.
__device__ __forceinline__ double block_sum(double value) {
  FinishShared& shared = static_shared<FinishShared>();
  value = warp_sum(value);
  if (threadIdx.x % 32 == 0) shared.sums[threadIdx.x / 32] = value;
  __syncthreads();
  if (threadIdx.x > 0) return value;
  for (int warp = 1; warp < kFinishThreads / 32; ++warp) value += shared.sums[warp];
  return value;
}

__global__ void __launch_bounds__(kFinishThreads) finish_kernel(Finish a) {
  const int64_t i = int64_t{blockIdx.x} * kFinishThreads + threadIdx.x, size = a.components * a.dims;
  double log_likelihood = 0;
  if (i < a.components) {
    const double count = a.counts_out[i] = strided_sum(a.counts + i, a.components, a.segments);
    log_likelihood += count * a.constant[i];
  }
  if (i < size) {
    a.first_out[i] = strided_sum(a.first + i, size, a.segments);
    const double second = a.second_out[i] = strided_sum(a.second + i, size, a.segments);
    log_likelihood -= 0.5 * a.precisions[i] * second;
  }
  log_likelihood = block_sum(log_likelihood);
  if (threadIdx.x == 0) a.parts[blockIdx.x] = log_likelihood;
}

// A block: adds up the parts and the entropies.
__global__ void __launch_bounds__(kFinishThreads) likelihood_kernel(Finish a, int64_t parts) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < parts; i += kFinishThreads) sum += a.parts[i];
  for (int64_t i = threadIdx.x; i < a.posterior_blocks; i += kFinishThreads) sum += a.entropies[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) *a.log_likelihood_out = sum;
}

}  // namespace pygen
