// Products of any channels in any type, without tensor cores: what the others are measured by, and what serves float64
// and odd numbers of channels.
#pragma once
#include "../ptx.h"
#include "maps.cuh"

namespace pygen {

// A thread has kPer rows and kPer columns, kSide apart. One more than a power of two is all banks.
template <class Real>
struct PlainTile {
  static constexpr int kSide = 16, kPer = 4, kLines = kSide * kPer, kDepth = 16, kPitch = kLines + 1;
  static constexpr int kThreads = kSide * kSide;
  Real a[kDepth][kPitch], b[kDepth][kPitch];
};

// sums = sum over k of a(row, k) b(column, k), each of which is asked for with k < depth. Lanes next to one another ask
// for the k next to one another, or for lines if kLinesFirst.
template <bool kLinesFirst, class Real, class A, class B>
__device__ __forceinline__ void plain_product(int64_t depth, const A& a, const B& b, Real (&sums)[4][4]) {
  using Tile = PlainTile<Real>;
  Tile& tile = static_shared<Tile>();
  const int row_of = threadIdx.x % Tile::kSide, column_of = threadIdx.x / Tile::kSide;
  for (int64_t start = 0; start < depth; start += Tile::kDepth) {
    for (int i = threadIdx.x; i < Tile::kLines * Tile::kDepth; i += Tile::kThreads) {
      const int line = kLinesFirst ? i % Tile::kLines : i / Tile::kDepth;
      const int at = kLinesFirst ? i / Tile::kLines : i % Tile::kDepth;
      const bool inside = start + at < depth;
      tile.a[at][line] = inside ? a(line, start + at) : Real{0};
      tile.b[at][line] = inside ? b(line, start + at) : Real{0};
    }
    __syncthreads();
    for (int at = 0; at < Tile::kDepth; ++at)
#pragma unroll
      for (int j = 0; j < Tile::kPer; ++j) {
        const Real other = tile.b[at][column_of + j * Tile::kSide];
#pragma unroll
        for (int i = 0; i < Tile::kPer; ++i)
          sums[i][j] = fused(tile.a[at][row_of + i * Tile::kSide], other, sums[i][j]);
      }
    __syncthreads();
  }
}

// One map computed from the other. bias [channels] may be null; statistics [parts, slots, channels], of the values
// without bias, are taken if that is not null, a slot being a tile's and a parity's.
template <class T>
struct MapOf {
  Maps maps;
  const T *from, *weight, *bias;
  T* to;
  Sums<Computed<T>>* statistics;
  Tiling tiling;
  Activated<Computed<T>> activated;
};

template <class T, bool kUp>
__global__ void __launch_bounds__(PlainTile<Computed<T>>::kThreads, 2) plain_map_kernel(MapOf<T> a) {
  using Real = Computed<T>;
  using Tile = PlainTile<Real>;
  using To = Direction<kUp>;
  const int parity = blockIdx.z;
  const int channels = To::channels(a.maps), source = To::source_channels(a.maps), side = To::source_width(a.maps);
  const int first_channel = blockIdx.y * Tile::kLines;
  const TileRows rows = rows_of(a.tiling, blockIdx.x);
  Real sums[Tile::kPer][Tile::kPer] = {};
  const auto pixel = [&](int line, int64_t k) {
    const int tap = static_cast<int>(k / source);
    const Pixel p = pixel_at(a.maps, rows.first + (line < rows.count ? line : 0));
    const int row = To::kStride * p.row + To::row_offset(tap, parity);
    const int column = To::kStride * p.column + To::column_offset(tap, parity);
    const bool inside =
        line < rows.count && row >= 0 && row < To::source_height(a.maps) && column >= 0 && column < side;
    const int64_t at = ((p.image * To::source_height(a.maps) + row) * side + column) * source + k % source;
    return inside ? widened(a.from[at]) : Real{0};
  };
  const auto weight = [&](int line, int64_t k) {
    const int64_t channel = first_channel + line, other = k % source;
    const int tap = To::weight_tap(static_cast<int>(k / source), parity);
    if (channel >= channels) return Real{0};
    return widened(
        a.weight[kUp ? (other * kTaps + tap) * channels + channel : (channel * kTaps + tap) * source + other]);
  };
  plain_product<false>(int64_t{To::kSourceTaps} * source, pixel, weight, sums);

  const int row_of = threadIdx.x % Tile::kSide, column_of = threadIdx.x / Tile::kSide;
#pragma unroll
  for (int j = 0; j < Tile::kPer; ++j) {
    const int channel = first_channel + column_of + j * Tile::kSide;
    if (a.statistics) {  // of a column, sixteen lanes next to one another have all rows
      Real sum = 0, squares = 0;
      for (int i = 0; i < Tile::kPer; ++i) sum += sums[i][j];
      for (int bits = 1; bits < Tile::kSide; bits *= 2) sum += __shfl_xor_sync(~0u, sum, bits);
      const Real mean = sum / static_cast<Real>(rows.count);
      for (int i = 0; i < Tile::kPer; ++i) {
        const Real difference = row_of + i * Tile::kSide < rows.count ? sums[i][j] - mean : Real{0};
        squares = fused(difference, difference, squares);
      }
      for (int bits = 1; bits < Tile::kSide; bits *= 2) squares += __shfl_xor_sync(~0u, squares, bits);
      const int64_t slot = int64_t{blockIdx.x} * To::kParities + parity;
      if (row_of == 0 && channel < channels) a.statistics[slot * channels + channel] = {mean, squares};
    }
    if (channel >= channels) continue;
    const Real bias = a.bias ? widened(a.bias[channel]) : Real{0};
    for (int i = 0; i < Tile::kPer; ++i) {
      const int row = row_of + i * Tile::kSide;
      if (row < rows.count)
        round_to(activate(sums[i][j] + bias, a.activated),
                 a.to[To::target(a.maps, rows.first + row, parity) * channels + channel]);
    }
  }
}

// Products of the two maps' pixels by taps: parts [splits, small channels, 16, large channels] of as many pixels each.
template <class T>
struct WeightOf {
  Maps maps;
  const T *small, *large;
  Computed<T>* parts;
  int64_t pixels;  // of the small map, in all
  int64_t split;   // pixels of a part
};

template <class T>
__global__ void __launch_bounds__(PlainTile<Computed<T>>::kThreads, 2) plain_weight_kernel(WeightOf<T> a) {
  using Real = Computed<T>;
  using Tile = PlainTile<Real>;
  using Down = Direction<false>;
  const int64_t begin = blockIdx.z * a.split, left = a.pixels - begin;
  const int first_small = blockIdx.x * Tile::kLines;
  const int64_t first_column = int64_t{blockIdx.y} * Tile::kLines, columns = int64_t{kTaps} * a.maps.large;
  Real sums[Tile::kPer][Tile::kPer] = {};
  const auto small = [&](int line, int64_t k) {
    const int channel = first_small + line;
    return channel < a.maps.small ? widened(a.small[(begin + k) * a.maps.small + channel]) : Real{0};
  };
  const auto large = [&](int line, int64_t k) {
    const int64_t at = first_column + line;
    if (at >= columns) return Real{0};
    const int tap = static_cast<int>(at / a.maps.large);
    const Pixel p = pixel_at(a.maps, begin + k);
    const int row = 2 * p.row + Down::row_offset(tap, 0), column = 2 * p.column + Down::column_offset(tap, 0);
    if (row < 0 || row >= 2 * a.maps.height || column < 0 || column >= 2 * a.maps.width) return Real{0};
    return widened(
        a.large[((p.image * 2 * a.maps.height + row) * 2 * a.maps.width + column) * a.maps.large + at % a.maps.large]);
  };
  plain_product<true>(left < a.split ? left : a.split, small, large, sums);

  for (int i = 0; i < Tile::kPer; ++i) {
    const int64_t channel = first_small + threadIdx.x % Tile::kSide + i * Tile::kSide;
    for (int j = 0; j < Tile::kPer; ++j) {
      const int64_t column = first_column + threadIdx.x / Tile::kSide + j * Tile::kSide;
      if (channel < a.maps.small && column < columns)
        a.parts[(int64_t{blockIdx.z} * a.maps.small + channel) * columns + column] = sums[i][j];
    }
  }
}

constexpr int kAddThreads = 256;

// The gradient [small channels, large channels, 16] if taps_last, else [small channels, 16, large channels]: the sum of
// its parts.
template <class T>
__global__ void __launch_bounds__(kAddThreads)
    add_parts_kernel(const Computed<T>* __restrict__ parts, int64_t n_parts, int small, int large, bool taps_last,
                     T* __restrict__ gradient) {
  const int64_t pair = int64_t{blockIdx.x} * kAddThreads + threadIdx.x, n = int64_t{small} * large;
  if (pair >= n) return;
  const int64_t first = pair / large * kTaps * large + pair % large;
  double sums[kTaps] = {};
  for (int64_t part = 0; part < n_parts; ++part)
#pragma unroll
    for (int tap = 0; tap < kTaps; ++tap) sums[tap] += parts[part * kTaps * n + first + int64_t{tap} * large];
#pragma unroll
  for (int tap = 0; tap < kTaps; ++tap)
    round_to(static_cast<Computed<T>>(sums[tap]),
             gradient[taps_last ? pair * kTaps + tap : first + int64_t{tap} * large]);
}

}  // namespace pygen
