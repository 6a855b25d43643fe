// Maps and weights' gradients as implicit products of matrices on tensor cores: channels in multiples of 16 bytes.
#pragma once
#include "plain.cuh"
#include "tile.cuh"

namespace pygen {

// A value and the next column's.
__device__ __forceinline__ void store_two(float* to, float x, float y) {
  *reinterpret_cast<float2*>(to) = make_float2(x, y);
}
__device__ __forceinline__ void store_two(__half* to, float x, float y) {
  *reinterpret_cast<uint32_t*>(to) = pack_half(x, y);
}
__device__ __forceinline__ void store_two(__nv_bfloat16* to, float x, float y) {
  *reinterpret_cast<uint32_t*>(to) = pack_bf16(x, y);
}

// What a block puts together once the stages are read.
template <class Shape>
struct Outcome {
  static constexpr int kPitch = Shape::kColumns + 8;
  typename Shape::T values[Shape::kRows * kPitch];
  float sums[Shape::kRowWarps][Shape::kColumns], squares[Shape::kRowWarps][Shape::kColumns];
};

template <class Shape, bool kUp>
union MapMemory {
  Stage<Shape, true, !kUp> stages[Shape::kStages];
  Outcome<Shape> outcome;
};

// Pixels of the source that a tile's rows begin at.
struct Origin {
  int64_t at;       // in elements, of tap 0 and channel 0
  int row, column;  // of the map; far outside for what is no row
};

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
  using T = typename Shape::T;
  using To = Direction<kUp>;
  using StageOf = Stage<Shape, true, !kUp>;
  using Rows = decltype(StageOf::a);
  using Columns = decltype(StageOf::b);
  MapMemory<Shape, kUp>& memory = *shared_memory<MapMemory<Shape, kUp>>();
  const int channels = To::channels(a.maps), source = To::source_channels(a.maps);
  const int height = To::source_height(a.maps), width = To::source_width(a.maps);
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
    const bool inside = line < rows.count;
    const Pixel p = pixel_at(a.maps, rows.first + (inside ? line : 0));
    const int row = To::kStride * p.row + To::row_offset(0, parity);
    const int column = To::kStride * p.column + To::column_offset(0, parity);
    origins[i] = {((p.image * height + row) * width + column) * source + Rows::quad(), inside ? row : -8, column};
  }

  int tap = 0, channel = 0;  // of the slice that is loaded next
  const auto load = [&](int64_t, StageOf& stage) {
    const int down = To::row_offset(tap, parity) - To::row_offset(0, parity);
    const int right = To::column_offset(tap, parity) - To::column_offset(0, parity);
    const int64_t away = (int64_t{down} * width + right) * source + channel;
#pragma unroll
    for (int i = 0; i < Rows::kEach; ++i) {
      const int row = origins[i].row + down, column = origins[i].column + right;
      const bool inside = static_cast<unsigned>(row) < static_cast<unsigned>(height) &&
                          static_cast<unsigned>(column) < static_cast<unsigned>(width) &&
                          channel + Rows::quad() < source;
      cp_async<16>(stage.a.at(i), a.from + (inside ? origins[i].at + away : 0), inside);
    }
    const int64_t weight_tap = To::weight_tap(tap, parity);
#pragma unroll
    for (int i = 0; i < Columns::kEach; ++i) {
      // Up, a line is a channel of the source, else one of the result.
      const int64_t to = first_channel + (kUp ? Columns::quad() : Columns::line(i));
      const int64_t from = channel + (kUp ? Columns::line(i) : Columns::quad());
      const bool inside = to < channels && from < source;
      const int64_t at = kUp ? (from * kTaps + weight_tap) * channels + to : (to * kTaps + weight_tap) * source + from;
      cp_async<16>(stage.b.at(i), a.weight + (inside ? at : 0), inside);
    }
    channel += Shape::kDepth;
    if (channel >= source) {
      channel = 0;
      ++tap;
    }
  };
  const int64_t slices = int64_t{To::kSourceTaps} * ((source + Shape::kDepth - 1) / Shape::kDepth);
  Accumulators<Shape> sums = {};
  multiply_all<Shape>(memory.stages, slices, warp, load, sums);
  cp_async_wait<0>();
  __syncthreads();  // nobody reads the stages any more

  Outcome<Shape>& outcome = memory.outcome;
  if (a.statistics)
    take_statistics<Shape>(sums, warp, rows.count, channels - first_channel, outcome,
                           a.statistics + (tile * To::kParities + parity) * channels + first_channel);
#pragma unroll
  for (int j = 0; j < Shape::kFragmentColumns; ++j) {
    const int column = warp.column + 8 * j + warp.lane % 4 * 2;
    float bias[2] = {};
    if (a.bias && first_channel + column < channels)
      for (int side = 0; side < 2; ++side) bias[side] = widened(a.bias[first_channel + column + side]);
#pragma unroll
    for (int i = 0; i < 2 * Shape::kFragmentRows; ++i) {
      const float* pair = sums[i / 2][j] + i % 2 * 2;
      store_two(outcome.values + (warp.row + 8 * i + warp.lane / 4) * Outcome<Shape>::kPitch + column,
                activate(pair[0] + bias[0], a.activated), activate(pair[1] + bias[1], a.activated));
    }
  }
  __syncthreads();
  constexpr int kQuads = Shape::kColumns / Shape::kQuad;
  for (int i = threadIdx.x; i < rows.count * kQuads; i += Shape::kThreads) {
    const int row = i / kQuads, column = i % kQuads * Shape::kQuad;
    if (first_channel + column >= channels) continue;
    T* to = a.to + To::target(a.maps, rows.first + row, parity) * channels + first_channel + column;
    *reinterpret_cast<int4*>(to) =
        *reinterpret_cast<const int4*>(outcome.values + row * Outcome<Shape>::kPitch + column);
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

// A block has small and large channels of one tap, and a part of the pixels.
template <class Shape>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks) weight_kernel(WeightOf<typename Shape::T> a) {
  using Down = Direction<false>;
  using StageOf = Stage<Shape, false, false>;
  using Small = decltype(StageOf::a);
  using Large = decltype(StageOf::b);
  StageOf* stages = shared_memory<StageOf>();
  const unsigned tiles = (a.maps.large + Shape::kColumns - 1) / Shape::kColumns;
  const int first_large = static_cast<int>(blockIdx.x % tiles) * Shape::kColumns;
  const int tap = static_cast<int>(blockIdx.x / tiles % kTaps);
  const int first_small = static_cast<int>(blockIdx.x / (tiles * kTaps)) * Shape::kRows;
  const int64_t begin = blockIdx.y * a.split, left = a.pixels - begin, n = left < a.split ? left : a.split;
  const Warp warp = this_warp<Shape>();

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
      const int row = 2 * p.row + Down::row_offset(tap, 0), column = 2 * p.column + Down::column_offset(tap, 0);
      const int channel = first_large + Large::quad();
      const bool inside = first + Large::line(i) < n && row >= 0 && row < 2 * a.maps.height && column >= 0 &&
                          column < 2 * a.maps.width && channel < a.maps.large;
      const int64_t at = ((p.image * 2 * a.maps.height + row) * 2 * a.maps.width + column) * a.maps.large + channel;
      cp_async<16>(stage.b.at(i), a.large + (inside ? at : 0), inside);
      step(a.maps, stride, p);
    }
  };
  Accumulators<Shape> sums = {};
  multiply_all<Shape>(stages, (n + Shape::kDepth - 1) / Shape::kDepth, warp, load, sums);
#pragma unroll
  for (int i = 0; i < 2 * Shape::kFragmentRows; ++i) {
    const int64_t channel = first_small + warp.row + 8 * i + warp.lane / 4;
    if (channel >= a.maps.small) continue;
    float* to = a.parts + ((blockIdx.y * a.maps.small + channel) * kTaps + tap) * a.maps.large;
#pragma unroll
    for (int j = 0; j < Shape::kFragmentColumns; ++j) {
      const int column = first_large + warp.column + 8 * j + warp.lane % 4 * 2;
      if (column < a.maps.large) store_two(to + column, sums[i / 2][j][i % 2 * 2], sums[i / 2][j][i % 2 * 2 + 1]);
    }
  }
}

}  // namespace pygen
