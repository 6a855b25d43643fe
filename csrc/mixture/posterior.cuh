// Bayes' rule over log joint densities [components, stride] on the GPU: what the sums need of each row to have its
// responsibilities, its log-likelihood, and, in float, close calls done again in float64.
#pragma once
#include "../pair.h"
#include "joint.cuh"

namespace pygen {

// A block has 32 rows, a lane each; its warps share the components.
constexpr int kPosteriorRows = 32, kPosteriorWarps = 8, kPosteriorThreads = 32 * kPosteriorWarps;

// A row that components within so many nats may have is done again, as is one whose density may be off by more than
// kOffNats. Beyond 20 nats a share of 2e-9 is wrong by less than float can tell. To it comes what the largest may be
// off where a row is so far from everything that this is more.
constexpr float kCloseNats = 20, kCloseShare = 1e-5f, kOffNats = 0.02f;

// Responsibilities of row n are exp(joint_kn - base_n) scale_n. Pointers may be null, but for base.
template <class T>
struct PosteriorOf {
  Joint<T> from;
  const float* slack;     // [components]
  const double* weights;  // [n]; null: 1
  bool settle;
  T* base;
  double *scale, *largest;
  double* log_likelihoods;  // what a block adds to, one for each
};

__device__ __forceinline__ float exp_of(float x) { return expf(x); }
__device__ __forceinline__ double exp_of(double x) { return exp(x); }

// Of the log joint densities of a row: the largest, the sum of their exponentials relative to it, the two largest that
// they may be and the largest that one is at least.
template <class T>
struct Peak {
  T top, upper, second, lower;
  double total;

  __device__ __forceinline__ void add(T value, float slack) {
    if (value > top) {
      total = total * exp_of(top - value) + 1;
      top = value;
    } else if (value - top > static_cast<T>(kLogNegligible)) {
      total += exp_of(value - top);
    }
    add_bounds(value + slack, -INFINITY, value - slack);
  }

  __device__ __forceinline__ void add(const Peak& other) {
    if (!(other.total > 0)) return;
    if (other.top > top) {
      total = total * exp_of(top - other.top) + other.total;
      top = other.top;
    } else {
      total += other.total * exp_of(other.top - top);
    }
    add_bounds(other.upper, other.second, other.lower);
  }

  __device__ __forceinline__ void add_bounds(T others_upper, T others_second, T others_lower) {
    const T less = others_upper > upper ? upper : others_upper;
    if (others_upper > upper) upper = others_upper;
    if (less > second) second = less;
    if (others_second > second) second = others_second;
    if (others_lower > lower) lower = others_lower;
  }

  // What may be close calls: densities that may be more than this.
  __device__ __forceinline__ T bound() const { return lower - (kCloseNats + fabs(lower) * kCloseShare); }
};

// Of a row: top is the float64 value of what base_n stands for; until it is known, bound is its peak's.
struct RowResult {
  double top, base, total, bound;
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

// The components of [first, first + 32) whose log joint density, this lane's in `joint`, may be more than `bound`.
__device__ __forceinline__ unsigned close_components(const Joint<float>& a, const float* slack, int64_t row,
                                                     int64_t first, float bound, float& joint) {
  const int64_t k = first + threadIdx.x % 32;
  joint = k < a.components ? a.joint[k * a.stride + row] : -INFINITY;
  return __ballot_sync(~0u, k < a.components && joint + slack[k] > bound);
}

__device__ __forceinline__ double exact_log_joint(const Joint<float>& a, int64_t row, int64_t k) {
  const int64_t place = k * a.dims;
  return a.constant[k] - 0.5 * warp_squared_distance(a.x + row * a.dims, a.means + place, a.precisions + place, a.dims);
}

// By a warp: those of a row's log joint densities that may be more than `bound` are found exactly, and all become
// relative to one of these.
__device__ __forceinline__ RowResult settle_row(const Joint<float>& a, const float* slack, int64_t row, float bound) {
  const int64_t lane = threadIdx.x % 32;
  double reference = -INFINITY, best = -INFINITY;
  float joint;
  for (int64_t first = 0; first < a.components; first += 32) {
    const unsigned close = close_components(a, slack, row, first, bound, joint);
    if (!close) continue;
    reference = exact_log_joint(a, row, first + __ffs(static_cast<int>(close)) - 1);
    break;
  }
  for (int64_t first = 0; first < a.components; first += 32) {
    unsigned left = close_components(a, slack, row, first, bound, joint);
    double relative = joint - reference;
    for (; left; left &= left - 1) {
      const int bit = __ffs(static_cast<int>(left)) - 1;
      const double exact = exact_log_joint(a, row, first + bit) - reference;
      if (bit == lane) relative = exact;
      if (exact > best) best = exact;
    }
    if (first + lane < a.components) a.joint[(first + lane) * a.stride + row] = static_cast<float>(relative);
  }
  const float base = static_cast<float>(best);
  double total = 0;
  for (int64_t k = lane; k < a.components; k += 32) {
    const float relative = a.joint[k * a.stride + row] - base;
    if (relative > static_cast<float>(kLogNegligible)) total += expf(relative);
  }
  return {reference + best, base, warp_sum(total), 0};
}

__device__ __forceinline__ RowResult settle_row(const Joint<double>&, const float*, int64_t, double) { return {}; }

template <class T>
__global__ void __launch_bounds__(kPosteriorThreads, 3) posterior_kernel(PosteriorOf<T> a) {
  constexpr int kAtOnce = 8;  // loads in flight
  PosteriorShared<T>& shared = static_shared<PosteriorShared<T>>();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t first_row = int64_t{blockIdx.x} * kPosteriorRows, row = first_row + lane;
  const bool known = row < a.from.n;
  const T* joint = a.from.joint + (known ? row : first_row);
  constexpr bool kSettles = sizeof(T) == sizeof(float);
  Peak<T> peak = {-INFINITY, -INFINITY, -INFINITY, -INFINITY, 0};
  for (int64_t k = warp; k < a.from.components; k += kAtOnce * kPosteriorWarps) {
    T values[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int64_t at = k + i * kPosteriorWarps;
      values[i] = at < a.from.components ? joint[at * a.from.stride] : -INFINITY;
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int64_t at = k + i * kPosteriorWarps;
      peak.add(values[i], kSettles && at < a.from.components ? __ldg(a.slack + at) : 0.0f);
    }
  }
  shared.peaks[warp][lane] = peak;
  __syncthreads();
  if (warp == 0) {
    for (int other = 1; other < kPosteriorWarps; ++other) peak.add(shared.peaks[other][lane]);
    const bool close =
        kSettles && a.settle && known && (peak.second > peak.bound() || peak.upper - peak.lower > 2 * kOffNats);
    shared.results[lane] = {peak.top, peak.top, peak.total, peak.bound()};
    const unsigned rows = __ballot_sync(~0u, close);
    if (lane == 0) shared.close = rows;
  }
  __syncthreads();
  for (int i = warp; i < kPosteriorRows; i += kPosteriorWarps) {
    if (!(shared.close >> i & 1)) continue;
    const RowResult settled = settle_row(a.from, a.slack, first_row + i, static_cast<T>(shared.results[i].bound));
    __syncwarp();
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
