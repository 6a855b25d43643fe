// Sums over groups of rows on the GPU, in float64: sum_n w_n (x_n - mean_k) and of the squares. Blocks take equal parts
// of the entries in the order of their groups, however unequal these are; each group's part of a block has sums of its
// own, and these are added up in a fixed order.
#pragma once
#include "../columns.cuh"
#include "order.cuh"

namespace pygen {

// kPart: entries of a block; its sums are then 1/128 of what it reads of float rows. A thread sums four columns.
constexpr int kMomentThreads = 256, kPart = 512, kMomentColumns = 4 * kMomentThreads;

// Block b's sums of group k are at b + k: along the order b or k grows, so that no two are at one place.
template <class T>
struct GroupSums {
  Order order;
  const T* x;             // [n, dims]; n at least 1 where there is an entry
  const double* means;    // [groups, dims]
  const double* weights;  // [entries]; null: 1
  const int64_t* rows;    // [entries]; null: the entry's own number
  int64_t n, dims;
  double *counts, *first, *second;  // [parts + groups, 1, dims, dims]; second may be null
};

struct PartShared {
  double weights[kPart];
  int64_t rows[kPart];
  double sums[kMomentThreads][8], counts[kMomentThreads];
};

// What lies outside makes its group's sums NaN.
template <class T>
__device__ __forceinline__ void load_part(const GroupSums<T>& a, int64_t begin, int64_t end, PartShared& shared) {
  for (int64_t at = begin + threadIdx.x; at < end; at += kMomentThreads) {
    const int64_t entry = a.order.entries[at], row = a.rows ? a.rows[entry] : entry;
    const bool known = row >= 0 && row < a.n && a.order.knows(entry);
    shared.rows[at - begin] = known ? row : 0;
    shared.weights[at - begin] = !known ? __longlong_as_double(0x7FF8000000000000) : a.weights ? a.weights[entry] : 1.0;
  }
}

template <class T, bool kWhole>
__global__ void __launch_bounds__(kMomentThreads, 3) group_sums_kernel(GroupSums<T> a) {
  PartShared& shared = static_shared<PartShared>();
  if (a.order.idle()) return;
  const int64_t begin = int64_t{blockIdx.x} * kPart, end = begin + kPart < a.order.n ? begin + kPart : a.order.n;
  const int64_t first_column = int64_t{blockIdx.y} * kMomentColumns;
  // Threads by four columns, as many teams as there is room for, which share the rows. Without columns one counts.
  const int64_t columns = a.dims - first_column < kMomentColumns ? a.dims - first_column : kMomentColumns;
  const int quads = columns > 0 ? static_cast<int>((columns + 3) / 4) : 1, teams = kMomentThreads / quads;
  const int team = threadIdx.x / quads, quad = threadIdx.x % quads;
  const int64_t column = first_column + 4 * quad;
  const int count = static_cast<int>(a.dims - column < 4 ? a.dims - column : 4);
  load_part(a, begin, end, shared);
  __syncthreads();
  for (int64_t at = begin; at < end;) {
    const int64_t k = a.order.group(a.order.entries[at]), group_end = a.order.end(k);
    const int start = static_cast<int>(at - begin),
              stop = static_cast<int>((group_end < end ? group_end : end) - begin);
    double mean[4] = {}, first[4] = {}, second[4] = {}, weights = 0;
#pragma unroll
    for (int j = 0; j < 4; ++j)
      if (j < count) mean[j] = a.means[k * a.dims + column + j];
#pragma unroll 4
    for (int i = team < teams ? start + team : stop; i < stop; i += teams) {
      const double weight = shared.weights[i];
      double x[4];
      load_columns<kWhole>(a.x + shared.rows[i] * a.dims + column, count, x);
      for (int j = 0; j < 4; ++j) {
        const double difference = x[j] - mean[j], weighted = weight * difference;
        first[j] += weighted;
        second[j] = fma(weighted, difference, second[j]);
      }
      weights += weight;
    }
    if (teams > 1) {
      for (int j = 0; j < 4; ++j) {
        shared.sums[threadIdx.x][j] = first[j];
        shared.sums[threadIdx.x][4 + j] = second[j];
      }
      shared.counts[threadIdx.x] = weights;
      __syncthreads();
      for (int other = 1; team == 0 && other < teams; ++other) {
        const int from = other * quads + quad;
        for (int j = 0; j < 4; ++j) {
          first[j] += shared.sums[from][j];
          second[j] += shared.sums[from][4 + j];
        }
        weights += shared.counts[from];
      }
      __syncthreads();
    }
    if (team == 0) {
      const int64_t place = blockIdx.x + k;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (j >= count) continue;
        a.first[place * a.dims + column + j] = first[j];
        if (a.second) a.second[place * a.dims + column + j] = second[j];
      }
      if (quad == 0 && blockIdx.y == 0) a.counts[place] = weights;
    }
    at = begin + stop;
  }
}

// A block is [columns, teams], which share the parts.
constexpr int kTotalColumns = 32, kTotalTeams = 8;

// The sum of a group's numbers at `from`, every `stride`, of its parts; all threads of the block call it, and those of
// the first team get it.
__device__ __forceinline__ double total_of_parts(const Order& order, int64_t k, const double* from, int64_t stride,
                                                 double (&sums)[kTotalTeams][kTotalColumns]) {
  const int64_t begin = order.begin(k), end = order.end(k);
  double sum = 0;
  if (begin < end)
    for (int64_t part = begin / kPart + threadIdx.y; part <= (end - 1) / kPart; part += kTotalTeams)
      sum += from[(part + k) * stride];
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  double total = 0;
  for (int team = 0; threadIdx.y == 0 && team < kTotalTeams; ++team) total += sums[team][threadIdx.x];
  __syncthreads();
  return total;
}

// What the parts add up to: counts [groups], first and second [groups, dims].
template <class T>
__global__ void __launch_bounds__(kTotalColumns* kTotalTeams)
    group_totals_kernel(GroupSums<T> a, double* counts, double* first, double* second) {
  auto& sums = static_shared<double[kTotalTeams][kTotalColumns]>();
  if (a.order.idle()) return;
  const int64_t k = blockIdx.x, column = int64_t{blockIdx.y} * kTotalColumns + threadIdx.x;
  const bool known = column < a.dims, writes = known && threadIdx.y == 0;
  const int64_t from = known ? column : 0, to = k * a.dims + from;
  const double count = total_of_parts(a.order, k, a.counts, 1, sums);
  if (blockIdx.y == 0 && threadIdx.x == 0 && threadIdx.y == 0) counts[k] = count;
  if (a.dims == 0) return;
  const double first_total = total_of_parts(a.order, k, a.first + from, a.dims, sums);
  if (writes) first[to] = first_total;
  if (!second) return;
  const double second_total = total_of_parts(a.order, k, a.second + from, a.dims, sums);
  if (writes) second[to] = second_total;
}

}  // namespace pygen
