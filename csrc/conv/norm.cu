#include "launches.h"
#include "norm.cuh"

namespace pygen {
namespace {

// Pixels of a block's chunk: enough that what a thread begins with is not what takes the time.
constexpr int64_t kChunk = 256, kMostChunks = 2048;

struct Blocks {
  Walk walk;
  dim3 grid, threads;
};

Blocks blocks_for(const NormCall& call, int size) {
  const int64_t lanes = divided(call.channels, size), chunks = norm_chunks(call.pixels, call.n_parts);
  unsigned across = 1;
  while (across < lanes && across < 64) across *= 2;
  return {{call.pixels, divided(call.pixels, chunks), static_cast<int>(call.channels)},
          dim3(static_cast<unsigned>(chunks), static_cast<unsigned>(call.n_parts), blocks_of(lanes, across)),
          dim3(across, kNormThreads / across)};
}

template <class T>
Norm<Computed<T>> norm_of(const NormCall& call) {
  using Real = Computed<T>;
  return {static_cast<const Real*>(call.mean), static_cast<const Real*>(call.variance),
          static_cast<const Real*>(call.weight), static_cast<const Real*>(call.bias), static_cast<Real>(call.eps)};
}

template <class T, int kSize>
void normalise(const NormCall& call, const void* z, void* y, Launcher& launch) {
  const Blocks blocks = blocks_for(call, kSize);
  launch(normalise_kernel<T, kSize>, blocks.grid, blocks.threads, 0, blocks.walk, norm_of<T>(call),
         computed_in<Computed<T>>(call.activated), static_cast<const T*>(z), static_cast<T*>(y));
}

template <class T, int kSize>
void backward(const NormCall& call, const void* grad, const void* from, void* slots, void* sums, void* before,
              void* grad_weight, void* grad_bias, Launcher& launch) {
  using Real = Computed<T>;
  const Blocks blocks = blocks_for(call, kSize);
  const Backward<T> a = {static_cast<const T*>(grad), static_cast<const T*>(from), norm_of<T>(call),
                         computed_in<Computed<T>>(call.activated)};
  const bool has_norm = call.mean != nullptr;
  Sums<Real>* of_chunks = static_cast<Sums<Real>*>(slots);
  launch(has_norm ? gradient_sums_kernel<T, kSize, true> : gradient_sums_kernel<T, kSize, false>, blocks.grid,
         blocks.threads, 0, blocks.walk, a, static_cast<T*>(before), of_chunks);
  Sums<Real>* of_parts = static_cast<Sums<Real>*>(sums);
  const unsigned merging = blocks_of(call.channels, kMergeChannels);
  const int64_t chunks = blocks.grid.x;
  const int channels = static_cast<int>(call.channels);
  if (!has_norm) {
    launch(merge_sums_kernel<Real, T>, merging, kMergeThreads, 0, of_chunks, chunks, call.n_parts, channels, of_parts,
           static_cast<T*>(nullptr), static_cast<T*>(grad_bias));
    return;
  }
  launch(merge_sums_kernel<Real, Real>, merging, kMergeThreads, 0, of_chunks, chunks, call.n_parts, channels, of_parts,
         static_cast<Real*>(grad_weight), static_cast<Real*>(grad_bias));
  launch(gradient_kernel<T, kSize>, blocks.grid, blocks.threads, 0, blocks.walk, a,
         static_cast<const Sums<Real>*>(of_parts), static_cast<T*>(before));
}

}  // namespace

int64_t norm_chunks(int64_t pixels, int64_t n_parts) {
  const int64_t wanted = divided(pixels, kChunk), room = divided(kMostChunks, n_parts);
  return wanted < room ? wanted : room;
}

void launch_merge_statistics(const void* slots, const Tiling& tiling, int parities, int64_t n_parts, int64_t channels,
                             Real dtype, void* mean, void* variance, Launcher& launch) {
  const dim3 grid(blocks_of(channels, kMergeChannels), static_cast<unsigned>(n_parts));
  const auto run = [&](auto real) {
    using Real = decltype(real);
    launch(merge_statistics_kernel<Real>, grid, kMergeThreads, 0, static_cast<const Sums<Real>*>(slots), tiling,
           parities, static_cast<int>(channels), static_cast<Real*>(mean), static_cast<Real*>(variance));
  };
  dtype == Real::kDouble ? run(double()) : run(float());
}

void launch_normalise(const NormCall& call, Real dtype, const void* z, void* y, Launcher& launch) {
  with_type(dtype, [&](auto type) {
    using T = decltype(type);
    constexpr int kSize = 16 / sizeof(T);
    call.channels % kSize == 0 ? normalise<T, kSize>(call, z, y, launch) : normalise<T, 1>(call, z, y, launch);
  });
}

void launch_norm_backward(const NormCall& call, Real dtype, const void* grad, const void* from, void* slots, void* sums,
                          void* before, void* grad_weight, void* grad_bias, Launcher& launch) {
  with_type(dtype, [&](auto type) {
    using T = decltype(type);
    constexpr int kSize = 16 / sizeof(T);
    const auto run = call.channels % kSize == 0 ? backward<T, kSize> : backward<T, 1>;
    run(call, grad, from, slots, sums, before, grad_weight, grad_bias, launch);
  });
}

}  // namespace pygen
