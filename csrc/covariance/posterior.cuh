// Who is responsible for which rows on the GPU: which components may be, Bayes' rule, and each component's rows and
// weights side by side in the rows' order. [K, n] is that of a chunk, which stays in the second-level cache.
#pragma once
#include "../pair.h"
#include "../ptx.h"

namespace pygen {

constexpr int kRowThreads = 128;

// The sum over a block's threads, for its first.
template <int kThreads>
__device__ __forceinline__ double block_sum(double value) {
  double* sums = static_shared<double[kThreads / 32]>();
  for (int bits = 16; bits > 0; bits /= 2) value += __shfl_xor_sync(0xFFFFFFFF, value, bits);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
  __syncthreads();
  double total = 0;
  if (threadIdx.x == 0)
    for (int warp = 0; warp < kThreads / 32; ++warp) total += sums[warp];
  return total;
}

// float64 [K, dims] as two numbers of T, of which the second is what the first leaves.
template <class T>
__global__ void __launch_bounds__(kRowThreads)
    split_means_kernel(const double* __restrict__ means, int64_t n, T* centre, T* rest) {
  const int64_t i = int64_t{blockIdx.x} * kRowThreads + threadIdx.x;
  if (i >= n) return;
  centre[i] = static_cast<T>(means[i]);
  rest[i] = static_cast<T>(means[i] - static_cast<double>(centre[i]));
}

// joint [K, n], log joint densities, become responsibilities times the rows' weights (null: 1), 0 where negligible.
// totals: a block adds its rows' log-likelihood to its own.
__global__ void __launch_bounds__(kRowThreads)
    posterior_kernel(double* joint, int64_t components, int64_t n, const double* __restrict__ weights, double* totals) {
  const int64_t row = int64_t{blockIdx.x} * kRowThreads + threadIdx.x;
  double log_likelihood = 0;
  if (row < n) {
    double top = joint[row];
    for (int64_t at = row + n; at < components * n; at += n) top = joint[at] > top ? joint[at] : top;
    double total = 0;
    for (int64_t at = row; at < components * n; at += n) {
      const double relative = joint[at] - top;
      joint[at] = relative > kLogNegligible ? exp(relative) : 0;
      total += joint[at];
    }
    const double weight = weights == nullptr ? 1 : weights[row], scale = weight / total;
    for (int64_t at = row; at < components * n; at += n)
      if (joint[at] != 0) joint[at] *= scale;
    log_likelihood = weight * (top + log(total));
  }
  log_likelihood = block_sum<kRowThreads>(log_likelihood);
  if (threadIdx.x == 0) totals[blockIdx.x] += log_likelihood;
}

__global__ void __launch_bounds__(kRowThreads) total_kernel(const double* __restrict__ totals, int64_t n, double* out) {
  double total = 0;
  for (int64_t i = threadIdx.x; i < n; i += kRowThreads) total += totals[i];
  total = block_sum<kRowThreads>(total);
  if (threadIdx.x == 0) *out = total;
}

constexpr int kCompactThreads = 1024, kItems = 4;

// A block goes through 0 to n - 1 and takes those whose value is not zero, in this order: take(to, i, value), `to`
// counting them. Returns their number. A value may be overwritten from its place on.
template <class Value, class Take>
__device__ __forceinline__ int64_t take_in_order(int64_t n, const Value& value, const Take& take) {
  constexpr int kWarps = kCompactThreads / 32;
  struct Numbers {
    int of_warps[2][kWarps];  // in turn: a warp may be one round ahead
  };
  Numbers& numbers = static_shared<Numbers>();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int64_t size = 0;
  int turn = 0;
  for (int64_t begin = 0; begin < n; begin += kCompactThreads * kItems, turn = 1 - turn) {
    const int64_t first = begin + threadIdx.x * kItems;
    decltype(value(first)) values[kItems];
    int own = 0;
    for (int i = 0; i < kItems; ++i) {
      values[i] = first + i < n ? value(first + i) : 0;
      own += values[i] != 0;
    }
    int until = own;  // of the warp, up to this lane
    for (int step = 1; step < 32; step *= 2) {
      const int before = __shfl_up_sync(0xFFFFFFFF, until, step);
      if (lane >= step) until += before;
    }
    if (lane == 31) numbers.of_warps[turn][warp] = until;
    __syncthreads();
    int64_t to = size + until - own;
    for (int other = 0; other < kWarps; ++other) {
      const int number = numbers.of_warps[turn][other];
      if (other < warp) to += number;
      size += number;
    }
    for (int i = 0; i < kItems; ++i)
      if (values[i] != 0) take(to++, first + i, values[i]);
  }
  return size;
}

// A block moves what is not zero in a component's responsibilities [n] to the front, writes the rows they are of,
// `start` being the first, and how many there are, and adds their sum to the component's count.
__global__ void __launch_bounds__(kCompactThreads)
    compact_kernel(double* resp, int64_t n, int64_t start, int64_t* rows, int64_t* sizes, double* counts) {
  resp += blockIdx.x * n;
  rows += blockIdx.x * n;
  double sum = 0;
  const auto value = [&](int64_t i) {
    sum += resp[i];
    return resp[i];
  };
  const int64_t size = take_in_order(n, value, [&](int64_t to, int64_t i, double resp_of_row) {
    resp[to] = resp_of_row;
    rows[to] = start + i;
  });
  sum = block_sum<kCompactThreads>(sum);
  if (threadIdx.x != 0) return;
  counts[blockIdx.x] += sum;
  sizes[blockIdx.x] = size;
}

// best [n]: the component with the largest of bounds [K, n].
__global__ void __launch_bounds__(kRowThreads)
    best_kernel(const double* __restrict__ bounds, int64_t components, int64_t n, int* best) {
  const int64_t row = int64_t{blockIdx.x} * kRowThreads + threadIdx.x;
  if (row >= n) return;
  int of_row = 0;
  double top = bounds[row];
  for (int64_t k = 1; k < components; ++k)
    if (bounds[k * n + row] > top) {
      top = bounds[k * n + row];
      of_row = static_cast<int>(k);
    }
  best[row] = of_row;
}

// A block writes the rows whose best component is its own, and how many there are; `others`, when that of the best in
// joint [K, n] is known: those where its own, of which joint has a bound, may matter all the same.
__global__ void __launch_bounds__(kCompactThreads)
    candidates_kernel(const double* __restrict__ joint, const int* __restrict__ best, int64_t n, bool others,
                      int64_t* rows, int64_t* sizes) {
  const int k = static_cast<int>(blockIdx.x);
  rows += k * n;
  const auto wanted = [&](int64_t i) {
    if (!others || best[i] == k) return others != (best[i] == k);
    return joint[k * n + i] > joint[best[i] * n + i] + kLogNegligible;
  };
  const int64_t size = take_in_order(n, wanted, [&](int64_t to, int64_t i, bool) { rows[to] = i; });
  if (threadIdx.x == 0) sizes[k] = size;
}

}  // namespace pygen
