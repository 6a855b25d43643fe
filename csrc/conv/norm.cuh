// Batch norm and activation of maps [pixels, channels], and their gradients. A part is what has statistics of its own:
// as many consecutive pixels each.
#pragma once
#include "../ptx.h"
#include "maps.cuh"

namespace pygen {

constexpr int kNormThreads = 256;

// A block's threads are [pixels, channels / kSize], or so many of these; blocks are [chunks of pixels, parts,
// channels].
struct Walk {
  int64_t pixels;  // of a part
  int64_t chunk;   // pixels of a block
  int channels;
};

// Calls each(element) for the first of this thread's elements of each pixel of its chunk.
template <int kUnroll, class Each>
__device__ __forceinline__ void walk_pixels(const Walk& w, int channel, const Each& each) {
  const int64_t begin = blockIdx.x * w.chunk, end = begin + w.chunk < w.pixels ? begin + w.chunk : w.pixels;
#pragma unroll kUnroll
  for (int64_t pixel = begin + threadIdx.y; pixel < end; pixel += blockDim.y)
    each((blockIdx.y * w.pixels + pixel) * w.channels + channel);
}

template <int kSize>
__device__ __forceinline__ int first_channel_of_thread() {
  return static_cast<int>(blockIdx.z * blockDim.x + threadIdx.x) * kSize;
}

// Statistics [parts, channels], and batch norm's parameters [channels], each of which may be null.
template <class Real>
struct Norm {
  const Real *mean, *variance, *weight, *bias;
  Real eps;
};

// A channel's: x becomes (x - mean) deviation weight + bias, deviation being one over the standard deviation.
template <class Real>
struct ChannelNorm {
  Real mean, deviation, weight, bias;

  __device__ __forceinline__ Real operator()(Real x) const { return fused((x - mean) * deviation, weight, bias); }
};

template <class Real>
__device__ __forceinline__ ChannelNorm<Real> channel_norm(const Norm<Real>& n, int64_t part, int channels,
                                                          int channel) {
  const int64_t at = part * channels + channel;
  return {n.mean[at], Real{1} / root(n.variance[at] + n.eps), n.weight ? n.weight[channel] : Real{1},
          n.bias ? n.bias[channel] : Real{0}};
}

// y = activation(norm(z)).
template <class T, int kSize>
__global__ void __launch_bounds__(kNormThreads, 3)
    normalise_kernel(Walk w, Norm<Computed<T>> norm, Activated<Computed<T>> activated, const T* __restrict__ z,
                     T* __restrict__ y) {
  using Real = Computed<T>;
  const int channel = first_channel_of_thread<kSize>();
  if (channel >= w.channels) return;
  ChannelNorm<Real> norms[kSize];
  for (int i = 0; i < kSize; ++i) norms[i] = channel_norm(norm, blockIdx.y, w.channels, channel + i);
  walk_pixels<4>(w, channel, [&](int64_t at) {
    Real x[kSize];
    load_several(z + at, x);
#pragma unroll
    for (int i = 0; i < kSize; ++i) x[i] = activate(norms[i](x[i]), activated);
    store_several(x, y + at);
  });
}

// What a gradient goes through: y, and its derivative there. With a norm, `from` is z and y is computed again; without,
// it is y itself.
template <class T>
struct Backward {
  const T *grad, *from;
  Norm<Computed<T>> norm;
  Activated<Computed<T>> activated;
};

// Sums over a block's pixels: of the gradient before the activation, and of its product with the normalised z. To
// sums [parts, chunks, channels]. Without a norm the gradient itself is written where `before` is not null.
template <class T, int kSize, bool kNorm>
__global__ void __launch_bounds__(kNormThreads, 2)
    gradient_sums_kernel(Walk w, Backward<T> a, T* __restrict__ before, Sums<Computed<T>>* __restrict__ sums) {
  using Real = Computed<T>;
  struct Shared {
    Real first[kNormThreads][kSize], second[kNorm ? kNormThreads : 1][kSize];
  };
  const int channel = first_channel_of_thread<kSize>();
  const bool inside = channel < w.channels;
  Real first[kSize] = {}, second[kSize] = {};
  if (inside) {
    ChannelNorm<Real> norms[kSize] = {};
    for (int i = 0; kNorm && i < kSize; ++i) norms[i] = channel_norm(a.norm, blockIdx.y, w.channels, channel + i);
    walk_pixels<4>(w, channel, [&](int64_t at) {
      Real grad[kSize], from[kSize];
      load_several(a.grad + at, grad);
      load_several(a.from + at, from);
#pragma unroll
      for (int i = 0; i < kSize; ++i) {
        const Real y = kNorm ? activate(norms[i](from[i]), a.activated) : from[i];
        grad[i] *= derivative(y, a.activated);
        first[i] += grad[i];
        if (kNorm) second[i] = fused(grad[i], (from[i] - norms[i].mean) * norms[i].deviation, second[i]);
      }
      if (!kNorm && before) store_several(grad, before + at);
    });
  }
  Shared& shared = static_shared<Shared>();
  const unsigned thread = threadIdx.y * blockDim.x + threadIdx.x;
  for (int i = 0; i < kSize; ++i) {
    shared.first[thread][i] = first[i];
    if (kNorm) shared.second[thread][i] = second[i];
  }
  __syncthreads();
  if (threadIdx.y > 0 || !inside) return;
  Sums<Real>* to = sums + (blockIdx.y * int64_t{gridDim.x} + blockIdx.x) * w.channels + channel;
  for (int i = 0; i < kSize; ++i) {
    Sums<Real> sum = {};
    for (unsigned y = 0; y < blockDim.y; ++y) {
      sum.first += shared.first[y * blockDim.x + threadIdx.x][i];
      if (kNorm) sum.second += shared.second[y * blockDim.x + threadIdx.x][i];
    }
    to[i] = sum;
  }
}

// The gradient before batch norm: its share of a part's sums [parts, channels] is taken off.
template <class T, int kSize>
__global__ void __launch_bounds__(kNormThreads, 2)
    gradient_kernel(Walk w, Backward<T> a, const Sums<Computed<T>>* __restrict__ sums, T* __restrict__ before) {
  using Real = Computed<T>;
  const int channel = first_channel_of_thread<kSize>();
  if (channel >= w.channels) return;
  const Real share = Real{1} / static_cast<Real>(w.pixels);
  ChannelNorm<Real> norms[kSize];
  Real first[kSize], second[kSize];
  for (int i = 0; i < kSize; ++i) {
    norms[i] = channel_norm(a.norm, blockIdx.y, w.channels, channel + i);
    const Sums<Real> sum = sums[blockIdx.y * int64_t{w.channels} + channel + i];
    first[i] = sum.first * share;
    second[i] = sum.second * share;
  }
  walk_pixels<2>(w, channel, [&](int64_t at) {
    Real grad[kSize], from[kSize];
    load_several(a.grad + at, grad);
    load_several(a.from + at, from);
#pragma unroll
    for (int i = 0; i < kSize; ++i) {
      const ChannelNorm<Real>& n = norms[i];
      const Real normal = (from[i] - n.mean) * n.deviation;
      const Real y = activate(fused(normal, n.weight, n.bias), a.activated);
      const Real centred = grad[i] * derivative(y, a.activated) - first[i] - normal * second[i];
      grad[i] = centred * (n.weight * n.deviation);
    }
    store_several(grad, before + at);
  });
}

// Threads are [slots, channels]. Four channels of eight bytes are what memory gives at once.
constexpr int kMergeChannels = 4, kMergeSlots = 128, kMergeThreads = kMergeChannels * kMergeSlots;

struct Merge {
  double values[3][kMergeSlots][kMergeChannels];
};

// The sum over the block's slots of each of three values, for threads of the first slot.
__device__ __forceinline__ void merge(double (&values)[3]) {
  Merge& shared = static_shared<Merge>();
  const int slot = threadIdx.x / kMergeChannels, channel = threadIdx.x % kMergeChannels;
  for (int i = 0; i < 3; ++i) shared.values[i][slot][channel] = values[i];
  __syncthreads();
  for (int half = kMergeSlots / 2; half > 0; half /= 2) {
    if (slot < half)
      for (int i = 0; i < 3; ++i) shared.values[i][slot][channel] += shared.values[i][slot + half][channel];
    __syncthreads();
  }
  for (int i = 0; i < 3; ++i) values[i] = shared.values[i][0][channel];
}

// The mean and the biased variance of a part's channels from those of its tiles. A slot is a tile's and a parity's.
template <class Real>
__global__ void __launch_bounds__(kMergeThreads, 2)
    merge_statistics_kernel(const Sums<Real>* __restrict__ slots, Tiling tiling, int parities, int channels,
                            Real* __restrict__ mean, Real* __restrict__ variance) {
  const int channel = static_cast<int>(blockIdx.x) * kMergeChannels + threadIdx.x % kMergeChannels;
  const int64_t part = blockIdx.y, n = tiling.tiles * parities;
  double values[3] = {}, about = 0;
  if (channel < channels) {
    const Sums<Real>* of_part = slots + part * n * channels + channel;
    about = of_part[0].first;
    const int64_t whole = n - parities;  // the last tile may be less
    const double rest = static_cast<double>(tiling.pixels - (tiling.tiles - 1) * tiling.rows);
#pragma unroll 8
    for (int64_t slot = threadIdx.x / kMergeChannels; slot < n; slot += kMergeSlots) {
      const Sums<Real> one = of_part[slot * channels];
      const double count = slot < whole ? tiling.rows : rest, difference = one.first - about;
      values[0] += count;
      values[1] += count * difference;
      values[2] += one.second + count * difference * difference;
    }
  }
  merge(values);
  if (threadIdx.x >= kMergeChannels || channel >= channels) return;
  const double shift = values[1] / values[0];
  mean[part * channels + channel] = static_cast<Real>(about + shift);
  variance[part * channels + channel] = static_cast<Real>((values[2] - values[1] * shift) / values[0]);
}

// Sums of the parts [parts, channels], and over all of them: first to `bias`, second, unless that is null, to `weight`.
template <class Real, class Out>
__global__ void __launch_bounds__(kMergeThreads, 2)
    merge_sums_kernel(const Sums<Real>* __restrict__ slots, int64_t n, int64_t parts, int channels,
                      Sums<Real>* __restrict__ of_parts, Out* __restrict__ weight, Out* __restrict__ bias) {
  const int channel = static_cast<int>(blockIdx.x) * kMergeChannels + threadIdx.x % kMergeChannels;
  const bool writes = threadIdx.x < kMergeChannels && channel < channels;
  double first = 0, second = 0;
  for (int64_t part = 0; part < parts; ++part) {
    double values[3] = {};
#pragma unroll 8
    for (int64_t slot = threadIdx.x / kMergeChannels; channel < channels && slot < n; slot += kMergeSlots) {
      const Sums<Real> one = slots[(part * n + slot) * channels + channel];
      values[0] += one.first;
      values[1] += one.second;
    }
    __syncthreads();  // the part before has been read
    merge(values);
    first += values[0];
    second += values[1];
    if (writes) of_parts[part * channels + channel] = {static_cast<Real>(values[0]), static_cast<Real>(values[1])};
  }
  if (!writes) return;
  round_to(static_cast<Computed<Out>>(first), bias[channel]);
  if (weight) round_to(static_cast<Computed<Out>>(second), weight[channel]);
}

}  // namespace pygen
