// Maps and weights' gradients as implicit products of matrices on tensor cores: channels in multiples of 16 bytes.
#pragma once
#include "plain.cuh"
#include "tile.cuh"

namespace pygen {

__device__ __forceinline__ void store_two(float* to, float x, float y) {
  *reinterpret_cast<float2*>(to) = make_float2(x, y);
}

// What a block puts together once the stages are read.
template <class Shape>
struct Outcome {
  static constexpr int kPitch = Shape::kColumns + 8;
  float values[Shape::kRows * kPitch];
  float sums[Shape::kRowWarps][Shape::kColumns], squares[Shape::kRowWarps][Shape::kColumns];
};

template <class Shape, bool kUp>
union MapMemory {
  Stage<Shape, true, !kUp> stages[Shape::kStages];
  Outcome<Shape> outcome;
};

// Where the source has what a row of the tile takes.
struct Origin {
  int64_t at;     // the first tap's first channel, in elements
  unsigned taps;  // bits: those that lie inside of the map
};

template <bool kUp>
__device__ __forceinline__ Origin origin_of(const Maps& m, int64_t pixel, int parity) {
  using To = Direction<kUp>;
  const int height = To::source_height(m), width = To::source_width(m);
  const Pixel p = pixel_at(m, pixel);
  unsigned taps = 0;
  for (int tap = 0; tap < To::kSourceTaps; ++tap) {
    const int row = To::kStride * p.row + To::row_offset(tap, parity);
    const int column = To::kStride * p.column + To::column_offset(tap, parity);
    if (row >= 0 && row < height && column >= 0 && column < width) taps |= 1u << tap;
  }
  const int row = To::kStride * p.row + To::row_offset(0, parity);
  const int column = To::kStride * p.column + To::column_offset(0, parity);
  return {((p.image * height + row) * width + column) * To::source_channels(m), taps};
}

template <class Shape>
using ColumnSums = float[Shape::kRowWarps][Shape::kColumns];

template <class Shape>
__device__ __forceinline__ float column_sum(const ColumnSums<Shape>& sums, int column) {
  float sum = 0;
  for (int i = 0; i < Shape::kRowWarps; ++i) sum += sums[i][column];
  return sum;
}

// Of each column the sum over the tile's rows of each(accumulator, row), made for the column by of_column, to `to`.
template <class Shape, class OfColumn>
__device__ __forceinline__ void add_columns(const Accumulators<Shape>& sums, const Warp& warp,
                                            const OfColumn& of_column, ColumnSums<Shape>& to) {
#pragma unroll
  for (int j = 0; j < Shape::kFragmentColumns; ++j)
#pragma unroll
    for (int side = 0; side < 2; ++side) {
      const int column = warp.column + 8 * j + warp.lane % 4 * 2 + side;
      const auto each = of_column(column);
      float sum = 0;
#pragma unroll
      for (int i = 0; i < 2 * Shape::kFragmentRows; ++i)
        sum += each(sums[i / 2][j][i % 2 * 2 + side], warp.row + 8 * i + warp.lane / 4);
      for (int bits = 4; bits < 32; bits *= 2) sum += __shfl_xor_sync(~0u, sum, bits);
      if (warp.lane < 4) to[warp.row / Shape::kWarpRows][column] = sum;
    }
}

// Mean and squared differences of each column, by two passes over the accumulators.
template <class Shape>
__device__ __forceinline__ void take_statistics(const Accumulators<Shape>& sums, const Warp& warp, int rows,
                                                int columns, Outcome<Shape>& outcome, Sums<float>* to) {
  const float count = static_cast<float>(rows);
  const auto as_it_is = [](float x, int) { return x; };  // 0 of what is no row
  add_columns<Shape>(sums, warp, [&](int) { return as_it_is; }, outcome.sums);
  __syncthreads();
  const auto square_about_mean = [&](int column) {
    const float mean = column_sum<Shape>(outcome.sums, column) / count;
    return [mean, rows](float x, int row) { return row < rows ? (x - mean) * (x - mean) : 0.0f; };
  };
  add_columns<Shape>(sums, warp, square_about_mean, outcome.squares);
  __syncthreads();
  for (int column = threadIdx.x; column < Shape::kColumns && column < columns; column += Shape::kThreads)
    to[column] = {column_sum<Shape>(outcome.sums, column) / count, column_sum<Shape>(outcome.squares, column)};
}

// Blocks of the same pixels are neighbours, which find them in the second-level cache.
template <class Shape, bool kUp>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks) map_kernel(MapOf<typename Shape::T> a) {
  using To = Direction<kUp>;
  using StageOf = Stage<Shape, true, !kUp>;
  using Rows = decltype(StageOf::a);
  using Columns = decltype(StageOf::b);
  MapMemory<Shape, kUp>& memory = *shared_memory<MapMemory<Shape, kUp>>();
  const int channels = To::channels(a.maps), source = To::source_channels(a.maps);
  const unsigned tiles = (channels + Shape::kColumns - 1) / Shape::kColumns;
  const int first_channel = static_cast<int>(blockIdx.x % tiles) * Shape::kColumns;
  const int parity = static_cast<int>(blockIdx.x / tiles % To::kParities);
  const int64_t tile = blockIdx.x / (tiles * To::kParities);
  const TileRows rows = rows_of(a.tiling, tile);
  const Warp warp = this_warp<Shape>();

  Origin origins[Rows::kEach];
#pragma unroll
  for (int i = 0; i < Rows::kEach; ++i) {
    const int line = Rows::line(i);
    if (line < rows.count)
      origins[i] = origin_of<kUp>(a.maps, rows.first + line, parity);
    else
      origins[i] = {0, 0};
  }

  // Of what this thread loads next of its rows. Up, a slice has one tap, so that its lines are channels of the source;
  // down, what is common are channels of one tap after another, as the weight has them.
  int tap = kUp ? 0 : Rows::quad() / source, channel = kUp ? Rows::quad() : Rows::quad() % source;
  const int taps_on = kUp ? 0 : Shape::kDepth / source, channels_on = kUp ? Shape::kDepth : Shape::kDepth % source;
  const int64_t weights = int64_t{kTaps} * source;  // of a channel, down
  const auto load = [&](int64_t slice, StageOf& stage) {
    const int down = To::row_offset(tap, parity) - To::row_offset(0, parity);
    const int right = To::column_offset(tap, parity) - To::column_offset(0, parity);
    const int64_t away = (int64_t{down} * To::source_width(a.maps) + right) * source + channel;
#pragma unroll
    for (int i = 0; i < Rows::kEach; ++i) {
      const bool inside = channel < source && origins[i].taps >> tap & 1;
      cp_async<16>(stage.a.at(i), a.from + (inside ? origins[i].at + away : 0), inside);
    }
    const int64_t first = kUp ? channel - Rows::quad() : slice * Shape::kDepth;  // of what is common
    const int64_t weight_tap = To::weight_tap(tap, parity);
#pragma unroll
    for (int i = 0; i < Columns::kEach; ++i) {
      const int64_t to = first_channel + (kUp ? Columns::quad() : Columns::line(i));
      const int64_t from = first + (kUp ? Columns::line(i) : Columns::quad());
      const bool inside = to < channels && from < (kUp ? source : weights);
      const int64_t at = kUp ? (from * kTaps + weight_tap) * channels + to : to * weights + from;
      cp_async<16>(stage.b.at(i), a.weight + (inside ? at : 0), inside);
    }
    tap += taps_on;
    channel += channels_on;
    if (channel - (kUp ? Rows::quad() : 0) >= source) {
      channel = kUp ? Rows::quad() : channel - source;
      ++tap;
    }
  };
  const int64_t common = kUp ? source : weights, in_slices = (common + Shape::kDepth - 1) / Shape::kDepth;
  const int64_t slices = kUp ? To::kSourceTaps * in_slices : in_slices;
  Accumulators<Shape> sums = {};
  multiply_all<Shape>(memory.stages, slices, warp, load, sums);
  cp_async_wait<0>();
  __syncthreads();  // nobody reads the stages any more

  Outcome<Shape>& outcome = memory.outcome;
  if (a.statistics)
    take_statistics<Shape>(sums, warp, rows.count, channels - first_channel, outcome,
                           a.statistics + (tile * To::kParities + parity) * channels + first_channel);
#pragma unroll
  for (int i = 0; i < 2 * Shape::kFragmentRows; ++i)
#pragma unroll
    for (int j = 0; j < Shape::kFragmentColumns; ++j)
      store_two(outcome.values + (warp.row + 8 * i + warp.lane / 4) * Outcome<Shape>::kPitch + warp.column + 8 * j +
                    warp.lane % 4 * 2,
                sums[i / 2][j][i % 2 * 2], sums[i / 2][j][i % 2 * 2 + 1]);
  __syncthreads();
  constexpr int kQuads = Shape::kColumns / Shape::kQuad, kRowsAtOnce = Shape::kThreads / kQuads;
  const int column = static_cast<int>(threadIdx.x) % kQuads * Shape::kQuad;
  if (first_channel + column >= channels) return;
  float bias[Shape::kQuad] = {};
  for (int i = 0; a.bias && i < Shape::kQuad; ++i) bias[i] = widened(a.bias[first_channel + column + i]);
  for (int row = threadIdx.x / kQuads; row < rows.count; row += kRowsAtOnce) {
    float values[Shape::kQuad];
#pragma unroll
    for (int i = 0; i < Shape::kQuad; ++i)
      values[i] = activate(outcome.values[row * Outcome<Shape>::kPitch + column + i] + bias[i], a.activated);
    store_several(values, a.to + To::target(a.maps, rows.first + row, parity) * channels + first_channel + column);
  }
}

// Steps from a pixel of the small map to that a number of pixels on, without a division.
struct Stride {
  int64_t images;
  int rows, columns;
};

__device__ __forceinline__ void step(const Maps& m, const Stride& by, Pixel& p) {
  p.image += by.images;
  p.row += by.rows;
  p.column += by.columns;
  if (p.column >= m.width) {
    p.column -= m.width;
    ++p.row;
  }
  if (p.row >= m.height) {
    p.row -= m.height;
    ++p.image;
  }
}

// A block has small channels, large channels of one tap after another, and a part of the pixels.
template <class Shape>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks) weight_kernel(WeightOf<typename Shape::T> a) {
  using Down = Direction<false>;
  using StageOf = Stage<Shape, false, false>;
  using Small = decltype(StageOf::a);
  using Large = decltype(StageOf::b);
  StageOf* stages = shared_memory<StageOf>();
  const int64_t columns = int64_t{kTaps} * a.maps.large;
  const unsigned tiles = static_cast<unsigned>((columns + Shape::kColumns - 1) / Shape::kColumns);
  const int64_t first_column = int64_t{blockIdx.x % tiles} * Shape::kColumns;
  const int first_small = static_cast<int>(blockIdx.x / tiles) * Shape::kRows;
  const int64_t begin = blockIdx.y * a.split, left = a.pixels - begin, n = left < a.split ? left : a.split;
  const Warp warp = this_warp<Shape>();
  const int64_t column = first_column + Large::quad();  // all that this thread loads
  const int tap = column < columns ? static_cast<int>(column / a.maps.large) : 0;
  const int channel = static_cast<int>(column % a.maps.large);
  const int down = Down::row_offset(tap, 0), right = Down::column_offset(tap, 0);

  Pixel pixels[Large::kEach];
#pragma unroll
  for (int i = 0; i < Large::kEach; ++i) pixels[i] = pixel_at(a.maps, begin + Large::line(i));
  const Pixel apart = pixel_at(a.maps, Shape::kDepth);
  const Stride stride = {apart.image, apart.row, apart.column};
  const auto load = [&](int64_t slice, StageOf& stage) {
    const int64_t first = slice * Shape::kDepth;
#pragma unroll
    for (int i = 0; i < Small::kEach; ++i) {
      const int64_t pixel = first + Small::line(i);
      const int channel = first_small + Small::quad();
      const bool inside = pixel < n && channel < a.maps.small;
      cp_async<16>(stage.a.at(i), a.small + (inside ? (begin + pixel) * a.maps.small + channel : 0), inside);
    }
#pragma unroll
    for (int i = 0; i < Large::kEach; ++i) {
      Pixel& p = pixels[i];
      const int row = 2 * p.row + down, at_column = 2 * p.column + right;
      const bool inside = column < columns && first + Large::line(i) < n && row >= 0 && row < 2 * a.maps.height &&
                          at_column >= 0 && at_column < 2 * a.maps.width;
      const int64_t at = ((p.image * 2 * a.maps.height + row) * 2 * a.maps.width + at_column) * a.maps.large + channel;
      cp_async<16>(stage.b.at(i), a.large + (inside ? at : 0), inside);
      step(a.maps, stride, p);
    }
  };
  Accumulators<Shape> sums = {};
  multiply_all<Shape>(stages, (n + Shape::kDepth - 1) / Shape::kDepth, warp, load, sums);
#pragma unroll
  for (int i = 0; i < 2 * Shape::kFragmentRows; ++i) {
    const int64_t small = first_small + warp.row + 8 * i + warp.lane / 4;
    if (small >= a.maps.small) continue;
    float* to = a.parts + (blockIdx.y * a.maps.small + small) * columns;
#pragma unroll
    for (int j = 0; j < Shape::kFragmentColumns; ++j) {
      const int64_t at = first_column + warp.column + 8 * j + warp.lane % 4 * 2;
      if (at < columns) store_two(to + at, sums[i / 2][j][i % 2 * 2], sums[i / 2][j][i % 2 * 2 + 1]);
    }
  }
}

}  // namespace pygen
