// Products of small matrices with sums in registers: everything is local to the file that includes this, as in lanes.h.
#pragma once
#include <cstdint>
#include <utility>

#include "../lanes.h"

namespace pygen::PYGEN_ISA {
namespace {

// Rows times vectors of sums.
constexpr int kRows = kRegisters == 32 ? 8 : 4, kWide = 2;
template <class T>
constexpr int kLanes = Vector<T>::kLanes;
template <class T>
constexpr int kColumns = kWide * kLanes<T>;

// A sum of many products loses digits: so many at a time, and then their sums.
constexpr int kChunk = 32;

inline int64_t over(int64_t n, int64_t d) { return (n + d - 1) / d; }
inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t up_to(int64_t n, int64_t d) { return over(n, d) * d; }

// How the left matrix [kRows, k] lies: by row inside of blocks of as many columns as a vector has lanes; by column, in
// kHigh rows, whole vectors; or by row, `left_stride` apart.
enum class Left { kBlocks, kColumns, kStrided };
template <class T>
constexpr int kHigh = 64 / sizeof(T);

// out [kRows, wide * lanes], `stride` from row to row, or what is added to it, of left [kRows, k] and right [k, wide *
// lanes], `right_stride` from row to row, k <= kChunk; but for columns, k is a multiple of the lanes.
template <class T, Left kLeft, int kSums = kWide>
inline void multiply_chunk(const T* left, const T* right, int64_t k, bool adds, T* out,
                           int64_t stride = kSums * kLanes<T>, int64_t right_stride = kSums * kLanes<T>,
                           int64_t left_stride = 0) {
  using V = Vector<T>;
  constexpr int kStep = kLeft == Left::kColumns ? 1 : V::kLanes;
  constexpr int kNext = kLeft == Left::kBlocks ? V::kLanes * kRows : kLeft == Left::kColumns ? kHigh<T> : V::kLanes;
  const int64_t row = kLeft == Left::kStrided ? left_stride : kStep;
  typename V::Lanes sums[kRows][kSums] = {};
  for (int64_t j = 0; j < k; j += kStep, left += kNext) {
#pragma GCC unroll 4
    for (int step = 0; step < kStep; ++step, right += right_stride) {
      typename V::Lanes columns[kSums];
      for (int v = 0; v < kSums; ++v) V::load(right + v * V::kLanes, columns[v]);
      for (int i = 0; i < kRows; ++i)
        for (int v = 0; v < kSums; ++v) sums[i][v] += columns[v] * left[i * row + step];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 8
    for (int v = 0; v < kSums; ++v) {
      T* to = out + i * stride + v * V::kLanes;
      if (adds) {
        typename V::Lanes before;
        V::load(to, before);
        sums[i][v] += before;
      }
      V::store(sums[i][v], to);
    }
}

// For any k, in blocks or by row.
template <class T, Left kLeft, int kSums>
void multiply(const T* left, const T* right, int64_t k, T* out, int64_t stride, int64_t left_stride = 0) {
  constexpr int64_t kWidth = kSums * kLanes<T>;
  for (int64_t begin = 0; begin < k; begin += kChunk)
    multiply_chunk<T, kLeft, kSums>(left + begin * (kLeft == Left::kBlocks ? kRows : 1), right + begin * kWidth,
                                    least(kChunk, k - begin), begin > 0, out, stride, kWidth, left_stride);
}

// The first `count` lanes of what is in memory, or all; others are 0.
template <class T>
inline void load(const T* from, int64_t count, typename Vector<T>::Lanes& lanes) {
  if (count >= kLanes<T>) {
    Vector<T>::load(from, lanes);
  } else {
    T some[kLanes<T>] = {};
    for (int i = 0; i < kLanes<T> && i < count; ++i) some[i] = from[i];
    Vector<T>::load(some, lanes);
  }
}

template <class T>
inline void store(const typename Vector<T>::Lanes& lanes, int64_t count, T* to) {
  if (count >= kLanes<T>) {
    Vector<T>::store(lanes, to);
  } else {
    T all[kLanes<T>];
    Vector<T>::store(lanes, all);
    for (int i = 0; i < kLanes<T> && i < count; ++i) to[i] = all[i];
  }
}

// By turns of the first halves of two vectors, and of the second.
template <class V, int... kLane>
inline void interleave(const V& a, const V& b, std::integer_sequence<int, kLane...>, V& low, V& high) {
  constexpr int kAll = sizeof...(kLane);
#if __has_builtin(__builtin_shufflevector)
  low = __builtin_shufflevector(a, b, (kLane / 2 + kLane % 2 * kAll)...);
  high = __builtin_shufflevector(a, b, (kAll / 2 + kLane / 2 + kLane % 2 * kAll)...);
#else
  low = V{(kLane % 2 == 0 ? a : b)[kLane / 2]...};
  high = V{(kLane % 2 == 0 ? a : b)[kAll / 2 + kLane / 2]...};
#endif
}

// to [lanes, lanes] = from [lanes, lanes] transposed; rows are that far apart.
template <class T>
inline void transpose(const T* from, int64_t from_stride, T* to, int64_t to_stride) {
  using V = Vector<T>;
  typename V::Lanes rows[V::kLanes];
  for (int i = 0; i < V::kLanes; ++i) V::load(from + i * from_stride, rows[i]);
  // Each time the first half of the rows is shuffled into the other, as cards are.
#pragma GCC unroll 4
  for (int shuffles = 1; shuffles < V::kLanes; shuffles *= 2) {
    typename V::Lanes next[V::kLanes];
#pragma GCC unroll 8
    for (int i = 0; i < V::kLanes / 2; ++i)
      interleave(rows[i], rows[i + V::kLanes / 2], std::make_integer_sequence<int, V::kLanes>(), next[2 * i],
                 next[2 * i + 1]);
    std::memcpy(rows, next, sizeof rows);
  }
  for (int i = 0; i < V::kLanes; ++i) V::store(rows[i], to + i * to_stride);
}

// The pixels [4, 4, channels] that down takes for pixel (y, x) of the small picture [height, width].
template <class T>
inline void copy_patch(const T* big, int64_t height, int64_t width, int64_t channels, int64_t y, int64_t x, T* patch) {
  const int64_t begin = x > 0 ? 2 * x - 1 : 0, end = least(2 * width, 2 * x + 3), skipped = begin - (2 * x - 1);
  for (int64_t v = 2 * y - 1; v < 2 * y + 3; ++v, patch += 4 * channels) {
    const bool inside = v >= 0 && v < 2 * height;
    const T* from = big + (v * 2 * width + begin) * channels;
    if (inside && end - begin == 4) {
      if (channels == 1)
        std::memcpy(patch, from, 4 * sizeof(T));
      else
        std::memcpy(patch, from, 4 * channels * sizeof(T));
      continue;
    }
    T *to = patch, *first = patch + skipped * channels, *last = first + (inside ? end - begin : 0) * channels;
    for (; to < first; ++to) *to = T{};
    for (; to < last; ++to) *to = *from++;
    for (; to < patch + 4 * channels; ++to) *to = T{};
  }
}

}  // namespace
}  // namespace pygen::PYGEN_ISA
