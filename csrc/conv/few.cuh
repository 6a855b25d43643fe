// Up to a map of few channels, a picture's: all four parities at once. A block has the pixels that it needs of the
// small map in shared memory, each of them once for all 3 x 3 neighbourhoods that it is part of, where a product for
// each parity would read it 16 times from the second-level cache; the weight stays there from tile to tile.
#pragma once
#include "plain.cuh"
#include "tile.cuh"

namespace pygen {

constexpr int kFewChannels = 4;

// A warp has 4 rows of 16 pixels, the rows of a fragment: of 6 rows read, each serves up to 3.
template <class T>
struct FewShape {
  static constexpr int kWarps = 4, kThreads = 32 * kWarps, kWarpRows = 4, kSide = kWarps * kWarpRows;
  static constexpr int kBordered = kSide + 2, kPixels = kBordered * kBordered;
  static constexpr int kQuad = 16 / sizeof(T), kDepth = 64 / sizeof(T), kStep = 32 / sizeof(T), kQuads = kDepth / kQuad;
  static constexpr int kPitch = kDepth + kQuad, kStages = 2;  // pixels are spread over all banks
  // A fragment's columns are the channels of two pixels of the large map, next to one another. Factors of a column of
  // the neighbourhood go together: for each row parity of the large map two, for the two rows that it takes.
  static constexpr int kColumns = 2 * kFewChannels, kTogether = 4, kFactors = 3 * kTogether;
  static constexpr int kLines = kFactors * kColumns;
  static_assert(kSide == 16, "a row is a fragment's");
};

template <class T>
struct FewMemory {
  T stages[FewShape<T>::kStages][FewShape<T>::kPixels * FewShape<T>::kPitch];
  // Of each warp: two rows of the large map.
  float rows[FewShape<T>::kWarps][2][2 * FewShape<T>::kSide * kFewChannels];
  // Behind it: the weight, [kLines, weight_pitch].
};

template <class T>
__host__ __device__ constexpr int few_weight_pitch(int small) {
  return (small + FewShape<T>::kDepth - 1) / FewShape<T>::kDepth * FewShape<T>::kDepth + FewShape<T>::kQuad;
}

template <class T>
struct FewOf {
  Maps maps;
  const T *from, *weight, *bias;
  T* to;
  Activated<float> activated;
  int across, down;  // tiles of an image
  int64_t tiles;
};

// Fragments: of the pixels, and of the weight.
template <class T>
struct Left {
  uint32_t of[4];
};
template <>
struct Left<float> {
  uint32_t large[4], small[4];
};
template <class T>
struct Right {
  uint32_t of[2];
};
template <>
struct Right<float> {
  uint32_t large[2], small[2];
};

// 16 pixels from `at` on.
template <class T>
__device__ __forceinline__ void load_left(const T* at, int lane, Left<T>& left) {
  ldmatrix(left.of, at + lane % 16 * FewShape<T>::kPitch + lane / 16 * 8);
}
__device__ __forceinline__ void load_left(const float* at, int lane, Left<float>& left) {
#pragma unroll
  for (int i = 0; i < 4; ++i)
    split_tf32(at[(lane / 4 + i % 2 * 8) * FewShape<float>::kPitch + lane % 4 + i / 2 * 4], left.large[i],
               left.small[i]);
}

// kTogether factors, one after the other.
template <class T>
__device__ __forceinline__ void load_right(const T* at, int pitch, int lane,
                                           Right<T> (&right)[FewShape<T>::kTogether]) {
#pragma unroll
  for (int i = 0; i < FewShape<T>::kTogether; i += 2) {
    uint32_t two[4];
    ldmatrix(two, at + ((i + lane / 16) * FewShape<T>::kColumns + lane % 8) * pitch + lane / 8 % 2 * 8);
#pragma unroll
    for (int j = 0; j < 4; ++j) right[i + j / 2].of[j % 2] = two[j];
  }
}
__device__ __forceinline__ void load_right(const float* at, int pitch, int lane,
                                           Right<float> (&right)[FewShape<float>::kTogether]) {
#pragma unroll
  for (int i = 0; i < FewShape<float>::kTogether; ++i)
#pragma unroll
    for (int j = 0; j < 2; ++j)
      split_tf32(at[(i * FewShape<float>::kColumns + lane / 4) * pitch + lane % 4 + 4 * j], right[i].large[j],
                 right[i].small[j]);
}

template <class T>
__device__ __forceinline__ void add_product(const Left<T>& left, const Right<T>& right, float (&sums)[4]) {
  multiply_half(T(), sums, left.of, right.of[0], right.of[1]);
}
__device__ __forceinline__ void add_product(const Left<float>& left, const Right<float>& right, float (&sums)[4]) {
  float sum[4] = {};
  mma_tf32(sum, left.small, right.large[0], right.large[1]);
  mma_tf32(sum, left.large, right.small[0], right.small[1]);
  mma_tf32(sum, left.large, right.large[0], right.large[1]);
#pragma unroll
  for (int i = 0; i < 4; ++i) sums[i] += sum[i];
}

// Factor 4 j + 2 parity + i is of the pixels i - 1 + parity down and j - 1 to the right.
template <class T>
__device__ __forceinline__ void take_few_weights(const FewOf<T>& a, int pitch, T* to) {
  using Shape = FewShape<T>;
  const int depth = pitch - Shape::kQuad;
  for (int at = threadIdx.x; at < Shape::kLines * depth; at += Shape::kThreads) {
    const int line = at / depth, channel = at - line * depth;
    const int factor = line / Shape::kColumns, column = line % Shape::kColumns;
    const int parity = factor / 2 % 2, down = factor % 2 - 1 + parity, right = factor / Shape::kTogether - 1;
    const int of_column = column / kFewChannels, picture = column % kFewChannels;
    const int row_tap = 1 + parity - 2 * down, column_tap = 1 + of_column - 2 * right;
    const bool met = column_tap >= 0 && column_tap < 4 && picture < a.maps.large && channel < a.maps.small;
    T value;
    round_to(0.0f, value);
    if (met) value = a.weight[(int64_t{channel} * kTaps + 4 * row_tap + column_tap) * a.maps.large + picture];
    to[line * pitch + channel] = value;
  }
}

struct FewTile {
  int64_t image;
  int row, column;  // the first of the tile's
};

template <class T>
__device__ __forceinline__ FewTile few_tile(const FewOf<T>& a, int64_t tile) {
  const int64_t line = tile / a.across, image = line / a.down;
  return {image, static_cast<int>(line - image * a.down) * FewShape<T>::kSide,
          static_cast<int>(tile - line * a.across) * FewShape<T>::kSide};
}

// The tile with a border of one pixel: channels from `first` on.
template <class T>
__device__ __forceinline__ void load_few(const FewOf<T>& a, const FewTile& tile, int first, T* stage) {
  using Shape = FewShape<T>;
  for (int at = threadIdx.x; at < Shape::kPixels * Shape::kQuads; at += Shape::kThreads) {
    const int pixel = at / Shape::kQuads, quad = at % Shape::kQuads * Shape::kQuad, channel = first + quad;
    const int row = tile.row - 1 + pixel / Shape::kBordered, column = tile.column - 1 + pixel % Shape::kBordered;
    const bool inside =
        row >= 0 && row < a.maps.height && column >= 0 && column < a.maps.width && channel < a.maps.small;
    const int64_t from = ((tile.image * a.maps.height + row) * a.maps.width + column) * a.maps.small + channel;
    cp_async<16>(stage + pixel * Shape::kPitch + quad, a.from + (inside ? from : 0), inside);
  }
}

// Of each row of the warp's, and of each row parity of the large map.
template <class T>
using FewSums = float[FewShape<T>::kWarpRows][2][4];

// Adds what the channels of a stage give; `weight` begins with their first.
template <class T>
__device__ __forceinline__ void multiply_few(const T* stage, const T* weight, int pitch, int warp, int lane,
                                             FewSums<T>& sums) {
  using Shape = FewShape<T>;
#pragma unroll 1
  for (int depth = 0; depth < Shape::kDepth; depth += Shape::kStep)
#pragma unroll 1  // one column's fragments fill the registers
    for (int column = 0; column < 3; ++column) {
      Right<T> right[Shape::kTogether];
      load_right(weight + column * Shape::kTogether * Shape::kColumns * pitch + depth, pitch, lane, right);
#pragma unroll
      for (int row = 0; row < Shape::kWarpRows + 2; ++row) {
        Left<T> left;
        load_left(stage + ((warp * Shape::kWarpRows + row) * Shape::kBordered + column) * Shape::kPitch + depth, lane,
                  left);
#pragma unroll
        for (int to = 0; to < Shape::kWarpRows; ++to)
#pragma unroll
          for (int parity = 0; parity < 2; ++parity) {
            const int i = row - to - parity;  // of the two rows that a row of this parity takes
            if (i >= 0 && i < 2) add_product(left, right[2 * parity + i], sums[to][parity]);
          }
      }
    }
}

// A warp's rows of the large map.
template <class T>
__device__ __forceinline__ void store_few(const FewOf<T>& a, const FewTile& tile, int warp, int lane,
                                          const FewSums<T>& sums, FewMemory<T>& memory) {
  using Shape = FewShape<T>;
  const int channels = a.maps.large, channel = lane % 2 * 2, of_column = lane / 2 % 2;
  float bias[2] = {};
  for (int i = 0; a.bias && i < 2; ++i)
    if (channel + i < channels) bias[i] = widened(a.bias[channel + i]);
  const int left = a.maps.width - tile.column, columns = left < Shape::kSide ? left : Shape::kSide;
#pragma unroll
  for (int to = 0; to < Shape::kWarpRows; ++to) {
    const int row = tile.row + warp * Shape::kWarpRows + to;
    if (row >= a.maps.height) return;
#pragma unroll
    for (int parity = 0; parity < 2; ++parity)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (channel + i % 2 < channels) {
          const int column = 2 * (lane / 4 + i / 2 * 8) + of_column;
          memory.rows[warp][parity][column * channels + channel + i % 2] =
              activate(sums[to][parity][i] + bias[i % 2], a.activated);
        }
    __syncwarp();
    for (int parity = 0; parity < 2; ++parity) {
      T* line =
          a.to + ((tile.image * 2 * a.maps.height + 2 * row + parity) * 2 * a.maps.width + 2 * tile.column) * channels;
      for (int at = 2 * lane; at < 2 * columns * channels; at += 64) {
        const float two[2] = {memory.rows[warp][parity][at], memory.rows[warp][parity][at + 1]};
        store_several(two, line + at);
      }
    }
    __syncwarp();
  }
}

// A block goes from tile to tile, and loads the next channels, or the next tile's first, while it multiplies.
template <class T>
__global__ void __launch_bounds__(FewShape<T>::kThreads, 2) few_kernel(FewOf<T> a) {
  using Shape = FewShape<T>;
  FewMemory<T>& memory = *shared_memory<FewMemory<T>>();
  T* weight = reinterpret_cast<T*>(&memory + 1);
  const int pitch = few_weight_pitch<T>(a.maps.small), depth = pitch - Shape::kQuad;
  const int warp = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / 32, 0), lane = static_cast<int>(threadIdx.x) % 32;
  take_few_weights(a, pitch, weight);
  int64_t next = blockIdx.x;
  int next_channel = 0, filled = 0;
  const auto load_next = [&] {
    if (next < a.tiles) load_few(a, few_tile(a, next), next_channel, memory.stages[filled]);
    cp_async_commit();
    filled ^= 1;
    next_channel += Shape::kDepth;
    if (next_channel == depth) {
      next_channel = 0;
      next += gridDim.x;
    }
  };
  load_next();
  int current = 0;
  for (int64_t tile = blockIdx.x; tile < a.tiles; tile += gridDim.x) {
    FewSums<T> sums = {};
    for (int channel = 0; channel < depth; channel += Shape::kDepth) {
      cp_async_wait<0>();
      __syncthreads();  // the stage is there, the weight too, and nobody reads the stage that is filled next
      load_next();
      multiply_few(memory.stages[current], weight + channel, pitch, warp, lane, sums);
      current ^= 1;
    }
    store_few(a, few_tile(a, tile), warp, lane, sums, memory);
  }
  cp_async_wait<0>();
}

}  // namespace pygen
