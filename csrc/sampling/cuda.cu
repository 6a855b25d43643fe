#include "../launch.h"
#include "factor.cuh"

namespace pygen {
namespace {

dim3 across(int64_t n, int threads) { return dim3(static_cast<unsigned>(divided(n, threads))); }

template <class T, bool kFast>
const char* sample_diagonal(int64_t* state, const DiagonalGaussians<T>& a, int64_t components, int64_t n,
                            Launcher launch) {
  constexpr int kBlocksPerMultiprocessor = 8;  // as many threads as it holds: a block's start then costs nothing
  int device = 0, multiprocessors = 0;
  launch.error = cudaGetDevice(&device);
  if (launch.error == cudaSuccess)
    launch.error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  const int64_t blocks = n * divided(a.columns, 4), resident = int64_t{multiprocessors} * kBlocksPerMultiprocessor,
                needed = divided(blocks, kSampleThreads);
  const dim3 grid(static_cast<unsigned>(needed < resident ? needed : resident));
  const bool whole =
      a.columns % 4 == 0 && is_aligned(a.means) && is_aligned(a.out) && (a.spherical || is_aligned(a.scales));
  launch(whole ? diagonal_kernel<T, true, kFast> : diagonal_kernel<T, false, kFast>, grid, kSampleThreads, 0, state, a,
         components, n);
  launch(advance_rows_kernel, 1, 1, 0, state, blocks);
  return error_text(launch.error);
}

// Where the parts of a workspace begin, in bytes.
struct Layout {
  int64_t tiles, inverses, split, noise, depth, tile_bytes;  // starts are at 0
};

template <class T>
Layout layout(int64_t n, int64_t size, int64_t components, int64_t n_factors) {
  constexpr bool kSplit = sizeof(T) == sizeof(float);
  const auto after = [](int64_t begin, int64_t bytes) { return begin + divided(bytes, 16) * 16; };
  Layout l = {};
  l.depth = divided(size, FactorTraits<T>::kDepth) * FactorTraits<T>::kDepth;
  l.tile_bytes = kTileRows * l.depth * static_cast<int64_t>(sizeof(T));
  l.tiles = after(0, (components + 1) * static_cast<int64_t>(sizeof(int64_t)));
  l.inverses = after(l.tiles, number_of_tiles(n, components) * static_cast<int64_t>(sizeof(Tile)));
  l.split = after(l.inverses, kSplit ? n_factors * size * 4 : 0);
  l.noise = after(l.split, kSplit ? n_factors * size * l.depth * 4 : 0);
  return l;
}

// Factors as the products take them.
struct SplitFactors {
  float *values, *inverses;
};

SplitFactors prepare(const FactorGaussians<float>& a, int64_t n_factors, const Layout& l, const int64_t* starts,
                     unsigned char* workspace, Launcher& launch) {
  const SplitFactors split = {reinterpret_cast<float*>(workspace + l.split),
                              reinterpret_cast<float*>(workspace + l.inverses)};
  launch(split_factor_kernel, across(n_factors * a.size * 32, kFactorThreads), kFactorThreads, 0, a.factors, n_factors,
         a.size, static_cast<int>(l.depth), starts, split.values, split.inverses);
  return split;
}

SplitFactors prepare(const FactorGaussians<double>&, int64_t, const Layout&, const int64_t*, unsigned char*,
                     Launcher&) {
  return {};
}

void multiply(const FactorGaussians<float>& a, const float* noise, const SplitFactors& split, dim3 grid, int depth,
              Launcher& launch) {
  launch(half_product_kernel, grid, kFactorThreads, kFactorSharedBytes, a, noise, split.values, split.inverses, depth);
}

void multiply(const FactorGaussians<double>& a, const double* noise, const SplitFactors&, dim3 grid, int depth,
              Launcher& launch) {
  launch(double_product_kernel, grid, kFactorThreads, 0, a, noise, depth);
}

template <class T, bool kFast>
const char* sample_factor(int64_t* state, const int64_t* sorted, FactorGaussians<T> a, int64_t n, int64_t components,
                          int64_t n_factors, unsigned char* workspace, int64_t noise_tiles, Launcher launch) {
  const Layout l = layout<T>(n, a.size, components, n_factors);
  const int64_t n_tiles = number_of_tiles(n, components);
  auto* starts = reinterpret_cast<int64_t*>(workspace);
  auto* tiles = reinterpret_cast<Tile*>(workspace + l.tiles);
  auto* noise = reinterpret_cast<T*>(workspace + l.noise);
  launch(starts_kernel, across(components + 1, kFactorThreads), kFactorThreads, 0, sorted, n, components, starts);
  launch(tiles_kernel, across(n_tiles, kFactorThreads), kFactorThreads, 0, starts, components, n_tiles, tiles);
  const SplitFactors split = prepare(a, n_factors, l, starts, workspace, launch);
  for (int64_t begin = 0; begin < n_tiles; begin += noise_tiles) {
    const int64_t count = n_tiles - begin < noise_tiles ? n_tiles - begin : noise_tiles;
    a.tiles = tiles + begin;
    launch(noise_kernel<T, kFast>, across(count * kTileRows * (l.depth / FactorTraits<T>::kGroup), kFactorThreads),
           kFactorThreads, 0, state, a.order, a.tiles, static_cast<unsigned>(count), a.size,
           static_cast<unsigned>(l.depth), noise);
    const dim3 grid(static_cast<unsigned>(divided(a.size, FactorTraits<T>::kColumns)), static_cast<unsigned>(count));
    multiply(a, noise, split, grid, static_cast<int>(l.depth), launch);
  }
  launch(unknown_rows_kernel<T>, across(n, kFactorThreads), kFactorThreads, 0, sorted, a.order, n, components, a.size,
         a.out);
  launch(advance_rows_kernel, 1, 1, 0, state, n * divided(a.size, 4));
  return error_text(launch.error);
}

}  // namespace

FactorWorkspace factor_workspace(int64_t n, int64_t size, int64_t components, int64_t n_factors, Real dtype) {
  // Noise of so much at a time: enough to fill a GPU many times over, little beside the samples.
  constexpr int64_t kNoiseBytes = int64_t{1} << 27, kMostTiles = 65535;  // of a grid
  const Layout l = dtype == Real::kFloat ? layout<float>(n, size, components, n_factors)
                                         : layout<double>(n, size, components, n_factors);
  const int64_t room = kNoiseBytes / l.tile_bytes, n_tiles = number_of_tiles(n, components);
  int64_t tiles = room < 1 ? 1 : room < kMostTiles ? room : kMostTiles;
  if (n_tiles < tiles) tiles = n_tiles;
  return {l.noise + tiles * l.tile_bytes, tiles};
}

const char* launch_sample_diagonal(int64_t* state, const int64_t* index, const void* means, const void* scales,
                                   int64_t n, int64_t columns, int64_t components, int64_t scale_stride, bool spherical,
                                   Real dtype, bool fast, void* out, void* stream) {
  if (n == 0 || columns == 0) return nullptr;
  const Launcher launch = {static_cast<cudaStream_t>(stream)};
  const auto run = [&](auto type) {
    using T = decltype(type);
    const DiagonalGaussians<T> gaussians = {
        index,     static_cast<const T*>(means), static_cast<const T*>(scales), columns, scale_stride,
        spherical, static_cast<T*>(out)};
    constexpr bool kHasFast = sizeof(T) == sizeof(float);
    return (fast ? sample_diagonal<T, kHasFast> : sample_diagonal<T, false>)(state, gaussians, components, n, launch);
  };
  return dtype == Real::kFloat ? run(float()) : run(double());
}

const char* launch_sample_factor(int64_t* state, const int64_t* sorted, const int64_t* order, const void* means,
                                 const void* factors, int64_t n, int64_t size, int64_t components, int64_t n_factors,
                                 Real dtype, bool fast, void* workspace, int64_t noise_tiles, void* out, void* stream) {
  if (n == 0 || size == 0) return nullptr;
  const Launcher launch = {static_cast<cudaStream_t>(stream)};
  const auto run = [&](auto type) {
    using T = decltype(type);
    const FactorGaussians<T> gaussians = {order,
                                          nullptr,
                                          static_cast<const T*>(means),
                                          static_cast<const T*>(factors),
                                          size,
                                          n_factors == 1 ? 0 : size * size,
                                          static_cast<T*>(out)};
    constexpr bool kHasFast = sizeof(T) == sizeof(float);
    return (fast ? sample_factor<T, kHasFast>
                 : sample_factor<T, false>)(state, sorted, gaussians, n, components, n_factors,
                                            static_cast<unsigned char*>(workspace), noise_tiles, launch);
  };
  return dtype == Real::kFloat ? run(float()) : run(double());
}

const char* launch_pick(int64_t* state, const double* weights, int64_t components, int64_t n, double* totals,
                        int64_t* out, void* stream) {
  if (n == 0) return nullptr;
  Launcher launch = {static_cast<cudaStream_t>(stream)};
  const int64_t blocks = divided(n, 4);
  launch(totals_kernel, 1, 1, 0, weights, components, totals);
  launch(pick_kernel, across(blocks, kSampleThreads), kSampleThreads, 0, state, totals, components, n, out);
  launch(advance_rows_kernel, 1, 1, 0, state, blocks);
  return error_text(launch.error);
}

}  // namespace pygen
