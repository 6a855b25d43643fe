// Bayes' rule over log joint densities [components, stride] on the GPU: what the sums need of each row to have its
// responsibilities, its log-likelihood, and, in float, close calls done again in float64.
#pragma once
#include "../pair.h"
#include "joint.cuh"

namespace pygen {

// A block has 32 rows, a lane each; its warps share the components.
constexpr int kPosteriorRows = 32, kPosteriorWarps = 8, kPosteriorThreads = 32 * kPosteriorWarps;

// A row that components within so many nats may have is done again. Beyond that a share of 2e-9 is wrong by less than
// float can tell. To it comes what the largest may be off where a row is so far from everything that this is more.
constexpr float kCloseNats = 20, kCloseShare = 1e-5f;

// Responsibilities of row n are exp(joint_kn - base_n) scale_n. Pointers may be null, but for base.
template <class T>
struct PosteriorOf {
  Joint<T> from;
  const double* weights;  // [n]; null: 1
  bool settle;
  T* base;
  double *scale, *largest;
  double* log_likelihoods;  // what a block adds to, one for each
};

__device__ __forceinline__ float exp_of(float x) { return expf(x); }
__device__ __forceinline__ double exp_of(double x) { return exp(x); }

// Of the log joint densities of a row: the two largest and the sum of their exponentials, relative to the largest.
template <class T>
struct Peak {
  T top, second;
  double total;

  __device__ __forceinline__ void add(T value) {
    if (value > top) {
      total = total * exp_of(top - value) + 1;
      second = top;
      top = value;
    } else {
      if (value > second) second = value;
      if (value - top > static_cast<T>(kLogNegligible)) total += exp_of(value - top);
    }
  }

  __device__ __forceinline__ void add(const Peak& other) {
    if (!(other.total > 0)) return;
    if (other.top > top) {
      const T runner_up = top > other.second ? top : other.second;
      total = total * exp_of(top - other.top) + other.total;
      top = other.top;
      second = runner_up;
    } else {
      if (other.top > second) second = other.top;
      total += other.total * exp_of(other.top - top);
    }
  }
};

// What is known of a row: top is the float64 value of what base_n stands for.
struct RowResult {
  double top, base, total;
};

template <class T>
struct PosteriorShared {
  Peak<T> peaks[kPosteriorWarps][kPosteriorRows];
  RowResult results[kPosteriorRows];
  unsigned close;  // a bit for each row
};

__device__ __forceinline__ double warp_squared_distance(const float* x, const double* mean, const double* precision,
                                                        int64_t dims) {
  double sum = 0;
  for (int64_t d = threadIdx.x % 32; d < dims; d += 32) {
    const double difference = static_cast<double>(x[d]) - mean[d];
    sum = fma(difference * precision[d], difference, sum);
  }
  return warp_sum(sum);
}

// By a warp: the log joint densities of a row become relative to their largest, those close to it exactly so.
__device__ __forceinline__ RowResult settle_row(const Joint<float>& a, int64_t row, float top) {
  const int lane = threadIdx.x % 32;
  const float bound = top - (kCloseNats + fabsf(top) * kCloseShare);
  double best = -INFINITY;
  for (int64_t first = 0; first < a.components; first += 32) {
    const int64_t k = first + lane;
    const float joint = k < a.components ? a.joint[k * a.stride + row] : -INFINITY;
    float relative = joint - top;
    for (unsigned left = __ballot_sync(~0u, joint > bound); left; left &= left - 1) {
      const int64_t close = first + __ffs(static_cast<int>(left)) - 1;
      const double distance =
          warp_squared_distance(a.x + row * a.dims, a.means + close * a.dims, a.precisions + close * a.dims, a.dims);
      const double exact = a.constant[close] - 0.5 * distance - top;
      if (close == k) relative = static_cast<float>(exact);
      if (exact > best) best = exact;
    }
    if (k < a.components) a.joint[k * a.stride + row] = relative;
  }
  const float base = static_cast<float>(best);
  double total = 0;
  for (int64_t k = lane; k < a.components; k += 32) {
    const float relative = a.joint[k * a.stride + row] - base;
    if (relative > static_cast<float>(kLogNegligible)) total += expf(relative);
  }
  return {static_cast<double>(top) + base, base, warp_sum(total)};
}

__device__ __forceinline__ RowResult settle_row(const Joint<double>&, int64_t, double) { return {}; }

template <class T>
__global__ void __launch_bounds__(kPosteriorThreads) posterior_kernel(PosteriorOf<T> a) {
  constexpr int kAtOnce = 8;  // loads in flight
  PosteriorShared<T>& shared = static_shared<PosteriorShared<T>>();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t first_row = int64_t{blockIdx.x} * kPosteriorRows, row = first_row + lane;
  const bool known = row < a.from.n;
  const T* joint = a.from.joint + (known ? row : 0);
  Peak<T> peak = {-INFINITY, -INFINITY, 0};
  for (int64_t k = warp; k < a.from.components; k += kAtOnce * kPosteriorWarps) {
    T values[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int64_t at = k + i * kPosteriorWarps;
      values[i] = at < a.from.components ? joint[at * a.from.stride] : -INFINITY;
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) peak.add(values[i]);
  }
  shared.peaks[warp][lane] = peak;
  __syncthreads();
  if (warp == 0) {
    for (int other = 1; other < kPosteriorWarps; ++other) peak.add(shared.peaks[other][lane]);
    const bool close = sizeof(T) == sizeof(float) && a.settle && known &&
                       peak.second > peak.top - (kCloseNats + fabs(peak.top) * kCloseShare);
    shared.results[lane] = {peak.top, peak.top, peak.total};
    const unsigned rows = __ballot_sync(~0u, close);
    if (lane == 0) shared.close = rows;
  }
  __syncthreads();
  for (int i = warp; i < kPosteriorRows; i += kPosteriorWarps) {
    if (!(shared.close >> i & 1)) continue;
    const RowResult settled = settle_row(a.from, first_row + i, static_cast<T>(shared.results[i].top));
    if (lane == 0) shared.results[i] = settled;
  }
  __syncthreads();
  if (warp != 0) return;
  const RowResult result = shared.results[lane];
  double log_likelihood = 0;
  if (known) {
    const double weight = a.weights ? a.weights[row] : 1;
    a.base[row] = static_cast<T>(result.base);
    if (a.scale) a.scale[row] = weight / result.total;
    if (a.largest) a.largest[row] = result.top;
    log_likelihood = weight * (result.top + log(result.total));
  }
  if (!a.log_likelihoods) return;
  log_likelihood = warp_sum(log_likelihood);
  if (lane == 0) a.log_likelihoods[blockIdx.x] += log_likelihood;
}

constexpr int kRelativeThreads = 256;

// Takes the rows' bases from all components'.
template <class T>
__global__ void __launch_bounds__(kRelativeThreads)
    relative_kernel(T* __restrict__ joint, const T* __restrict__ base, int64_t n, int64_t components) {
  const int64_t row = int64_t{blockIdx.x} * kRelativeThreads + threadIdx.x;
  if (row >= n) return;
  const T least = base[row];
  for (int64_t k = blockIdx.y; k < components; k += gridDim.y) joint[k * n + row] -= least;
}

}  // namespace pygen
