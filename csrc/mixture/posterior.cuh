// Bayes' rule over log joint densities [components, stride] on the GPU: what the sums need of each row to have its
// responsibilities, their entropy, and, in float, close calls done again in float64.
//
// The log-likelihood is the mean, over responsibilities, of density less log responsibility: the densities' follows
// from the sums, exactly, and errors of the responsibilities enter to second order. So a row that one component has for
// certain needs no accurate density; fast ones tell which these are, and what components the others may have.
#pragma once
#include "../pair.h"
#include "joint.cuh"

namespace pygen {

// A block has 32 rows, a lane each; its warps share the components.
constexpr int kPosteriorRows = 32, kPosteriorWarps = 8, kPosteriorThreads = 32 * kPosteriorWarps;

// What a density is off by at most where it is asked for.
constexpr float kOffNats = 0.02f;

// A row that components within so many nats may have is done again. Beyond 20 nats a share of 2e-9 is wrong by less
// than float can tell.
constexpr float kCloseNats = 20;

// A block with more close calls, and more than there are components, is crowded: all densities in float cost less than
// these in float64. Of them only rows are done again whose densities may be off by more than is allowed.
constexpr int64_t kFewExact = 64;

enum class Pass { kOnly, kScreen, kCrowded };

// Responsibilities of row n are exp(joint_kn - base_n) scale_n. Pointers may be null, but for base.
template <class T>
struct PosteriorOf {
  Joint<T> from;
  const float* spread;    // [components], see terms_of
  float share;            // of those terms, that densities may be off by
  float allowed;          // in nats; rows whose largest may be off by more are done again where that is asked for
  const double* weights;  // [n]; null: 1
  bool settle;
  Pass pass;
  int* crowded;  // of each block, whether kScreen leaves it to kCrowded
  T* base;
  double *scale, *largest;
  double* entropies;  // what a block adds to, one for each
};

__device__ __forceinline__ float exp_of(float x) { return expf(x); }
__device__ __forceinline__ double exp_of(double x) { return exp(x); }

// Of the log joint densities of a row: the largest, the sum of their exponentials relative to it and of these times
// their logarithms, the two largest that they may be and the largest that one is at least.
template <class T>
struct Peak {
  T top, upper, second, lower;
  double total, moment;

  __device__ __forceinline__ void raise(T to) {
    if (total > 0) {
      const double factor = exp_of(top - to);
      moment = factor * (moment + (top - to) * total);
      total *= factor;
    }
    top = to;
  }

  __device__ __forceinline__ void add(T value, T off) {
    if (value > top) {
      raise(value);
      total += 1;
    } else if (value - top > static_cast<T>(kLogNegligible)) {
      const double share = exp_of(value - top);
      total += share;
      moment += share * (value - top);
    }
    add_bounds(value + off, -INFINITY, value - off);
  }

  __device__ __forceinline__ void add(const Peak& other) {
    if (!(other.total > 0)) return;
    if (other.top > top) raise(other.top);
    const T step = other.top - top;
    const double factor = exp_of(step);
    total += factor * other.total;
    moment += factor * (other.moment + step * other.total);
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
  __device__ __forceinline__ T bound() const { return lower - kCloseNats; }
};

// Of a row: top is the float64 value of what base_n stands for; until it is known, bound is its peak's.
struct RowResult {
  double top, base, total, moment, bound;
};

template <class T>
struct PosteriorShared {
  Peak<T> peaks[kPosteriorWarps][kPosteriorRows];
  RowResult results[kPosteriorRows];
  unsigned close, off;         // a bit for each row
  int exact[kPosteriorWarps];  // close calls
};

__device__ __forceinline__ double warp_squared_distance(const float* x, const double* mean, const double* precision,
                                                        int64_t dims) {
  double sum = 0;
#pragma unroll 4  // loads in flight
  for (int64_t d = threadIdx.x % 32; d < dims; d += 32) {
    const double difference = static_cast<double>(x[d]) - mean[d];
    sum = fma(difference * precision[d], difference, sum);
  }
  return warp_sum(sum);
}

__device__ __forceinline__ float off_of(const PosteriorOf<float>& a, int64_t k, float joint) {
  return a.share * terms_of(__ldg(a.spread + k), joint);
}
__device__ __forceinline__ double off_of(const PosteriorOf<double>&, int64_t, double) { return 0; }

// The components of [first, first + 32) whose log joint density, this lane's in `joint`, may be more than `bound`.
__device__ __forceinline__ unsigned close_components(const PosteriorOf<float>& a, int64_t row, int64_t first,
                                                     float bound, float& joint) {
  const int64_t k = first + threadIdx.x % 32;
  const bool known = k < a.from.components;
  joint = known ? a.from.joint[k * a.from.stride + row] : -INFINITY;
  return __ballot_sync(~0u, known && joint + off_of(a, k, joint) > bound);
}

__device__ __forceinline__ int close_count(const PosteriorOf<float>& a, int64_t row, float bound) {
  int count = 0;
  float joint;
  for (int64_t first = 0; first < a.from.components; first += 32)
    count += __popc(close_components(a, row, first, bound, joint));
  return count;
}

__device__ __forceinline__ double exact_log_joint(const Joint<float>& a, int64_t row, int64_t k) {
  const int64_t place = k * a.dims;
  return a.constant[k] - 0.5 * warp_squared_distance(a.x + row * a.dims, a.means + place, a.precisions + place, a.dims);
}

// By a warp: those of a row's log joint densities that may be more than `bound` are found exactly, and all become
// relative to one of these.
__device__ __forceinline__ RowResult settle_row(const PosteriorOf<float>& a, int64_t row, float bound) {
  const Joint<float>& from = a.from;
  const int64_t lane = threadIdx.x % 32;
  double reference = 0, best = -INFINITY;
  bool any = false;
  float joint;
  int64_t begin = 0;
  while (begin < from.components && !close_components(a, row, begin, bound, joint)) begin += 32;
  for (int64_t first = begin; first < from.components; first += 32) {
    double relative = 0;
    const unsigned close = close_components(a, row, first, bound, joint);
    for (unsigned left = close; left; left &= left - 1) {
      const int bit = __ffs(static_cast<int>(left)) - 1;
      const double exact = exact_log_joint(from, row, first + bit);
      if (!any) reference = exact;
      any = true;
      if (bit == lane) relative = exact - reference;
      if (exact - reference > best) best = exact - reference;
    }
    if (!(close >> lane & 1)) relative = joint - reference;
    if (first + lane < from.components) from.joint[(first + lane) * from.stride + row] = static_cast<float>(relative);
  }
  for (int64_t k = lane; k < begin; k += 32)
    from.joint[k * from.stride + row] = static_cast<float>(from.joint[k * from.stride + row] - reference);
  const float base = static_cast<float>(best);
  double total = 0, moment = 0;
  for (int64_t k = lane; k < from.components; k += 32) {
    const float relative = from.joint[k * from.stride + row] - base;
    if (!(relative > static_cast<float>(kLogNegligible))) continue;
    const float share = expf(relative);
    total += share;
    moment += share * relative;
  }
  return {reference + best, base, warp_sum(total), warp_sum(moment), 0};
}

// Settles the rows marked in `shared`, whose results are all there; false if the block is left to another pass.
__device__ __forceinline__ bool settle_rows(const PosteriorOf<float>& a, int64_t first_row,
                                            PosteriorShared<float>& shared) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int exact = 0;
  for (int i = warp; i < kPosteriorRows; i += kPosteriorWarps)
    if (shared.close >> i & 1) exact += close_count(a, first_row + i, static_cast<float>(shared.results[i].bound));
  if (lane == 0) shared.exact[warp] = exact;
  __syncthreads();
  int64_t all = 0;
  for (const int of_warp : shared.exact) all += of_warp;
  const bool crowded = all > (a.from.components > kFewExact ? a.from.components : kFewExact);
  if (a.pass == Pass::kScreen) {
    if (threadIdx.x == 0) a.crowded[blockIdx.x] = crowded;
    if (crowded) return false;
  }
  const unsigned rows = crowded ? shared.close & shared.off : shared.close;
  for (int i = warp; i < kPosteriorRows; i += kPosteriorWarps) {
    if (!(rows >> i & 1)) continue;
    const RowResult settled = settle_row(a, first_row + i, static_cast<float>(shared.results[i].bound));
    __syncwarp();
    if (lane == 0) shared.results[i] = settled;
  }
  __syncthreads();
  return true;
}

template <class T>
__global__ void __launch_bounds__(kPosteriorThreads, 3) posterior_kernel(PosteriorOf<T> a) {
  constexpr int kAtOnce = 8;  // loads in flight
  if (a.pass == Pass::kCrowded && !a.crowded[blockIdx.x]) return;
  PosteriorShared<T>& shared = static_shared<PosteriorShared<T>>();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t first_row = int64_t{blockIdx.x} * kPosteriorRows, row = first_row + lane;
  const bool known = row < a.from.n;
  const T* joint = a.from.joint + (known ? row : first_row);
  Peak<T> peak = {-INFINITY, -INFINITY, -INFINITY, -INFINITY, 0, 0};
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
      if (at < a.from.components) peak.add(values[i], off_of(a, at, values[i]));
    }
  }
  shared.peaks[warp][lane] = peak;
  __syncthreads();
  if (warp == 0) {
    for (int other = 1; other < kPosteriorWarps; ++other) peak.add(shared.peaks[other][lane]);
    shared.results[lane] = {peak.top, peak.top, peak.total, peak.moment, peak.bound()};
    const bool off = known && peak.upper - peak.lower > 2 * a.allowed;
    const bool close = known && peak.second > peak.bound();
    const unsigned off_rows = __ballot_sync(~0u, off), close_rows = __ballot_sync(~0u, close || (off && a.largest));
    if (lane == 0) shared.off = off_rows, shared.close = close_rows;
  }
  __syncthreads();
  if constexpr (sizeof(T) == sizeof(float))
    if (a.settle && !settle_rows(a, first_row, shared)) return;
  if (warp != 0) return;
  const RowResult result = shared.results[lane];
  double entropy = 0;
  if (known) {
    const double weight = a.weights ? a.weights[row] : 1;
    a.base[row] = static_cast<T>(result.base);
    if (a.scale) a.scale[row] = weight / result.total;
    if (a.largest) a.largest[row] = result.top;
    entropy = weight * (log(result.total) - result.moment / result.total);
  }
  if (!a.entropies) return;
  entropy = warp_sum(entropy);
  if (lane == 0) a.entropies[blockIdx.x] += entropy;
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
