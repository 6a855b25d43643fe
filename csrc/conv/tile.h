// Products of small matrices with sums in registers: everything is local to the file that includes this, as in lanes.h.
#pragma once
#include <cstdint>

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

// How the left matrix [kRows, k] lies: by row inside of blocks of as many columns as a vector has lanes, or by column,
// in as many rows as fill a vector.
enum class Left { kBlocks, kColumns };
template <class T>
constexpr int kHigh = kLanes<T> > kRows ? kLanes<T> : kRows;

// out [kRows, wide * lanes] of left [kRows, k] and right [k, wide * lanes]; for blocks, k is a multiple of the lanes.
template <class T, Left kLeft, int kSums = kWide>
void multiply(const T* left, const T* right, int64_t k, T* out) {
  using V = Vector<T>;
  constexpr int kStep = kLeft == Left::kBlocks ? V::kLanes : 1;
  constexpr int kNext = kLeft == Left::kBlocks ? V::kLanes * kRows : kHigh<T>;
  for (int64_t begin = 0; begin < k; begin += kChunk) {
    typename V::Lanes sums[kRows][kSums] = {};
    const int64_t end = begin + kChunk < k ? begin + kChunk : k;
    for (int64_t j = begin; j < end; j += kStep, left += kNext) {
#pragma GCC unroll 4
      for (int step = 0; step < kStep; ++step, right += kSums * V::kLanes) {
        typename V::Lanes columns[kSums];
        for (int v = 0; v < kSums; ++v) V::load(right + v * V::kLanes, columns[v]);
        for (int i = 0; i < kRows; ++i)
          for (int v = 0; v < kSums; ++v) sums[i][v] += columns[v] * left[i * kStep + step];
      }
    }
    for (int i = 0; i < kRows; ++i)
      for (int v = 0; v < kSums; ++v) {
        T* to = out + (i * kSums + v) * V::kLanes;
        if (begin > 0) {
          typename V::Lanes before;
          V::load(to, before);
          sums[i][v] += before;
        }
        V::store(sums[i][v], to);
      }
  }
}

// The first `count` lanes of what is in memory, or all; others are 0.
template <class T>
inline void load(const T* from, int64_t count, typename Vector<T>::Lanes& lanes) {
  if (count >= kLanes<T>) {
    Vector<T>::load(from, lanes);
  } else {
    lanes = typename Vector<T>::Lanes{};
    if (count > 0) std::memcpy(&lanes, from, count * sizeof(T));
  }
}

template <class T>
inline void store(const typename Vector<T>::Lanes& lanes, int64_t count, T* to) {
  if (count >= kLanes<T>)
    Vector<T>::store(lanes, to);
  else
    std::memcpy(to, &lanes, count * sizeof(T));
}

// The pixels [4, 4, channels] that down takes for pixel (y, x) of the small picture [height, width].
template <class T>
inline void copy_patch(const T* big, int64_t height, int64_t width, int64_t channels, int64_t y, int64_t x, T* patch) {
  const int64_t begin = x > 0 ? 2 * x - 1 : 0, end = least(2 * width, 2 * x + 3), skipped = begin - (2 * x - 1);
  for (int64_t v = 2 * y - 1; v < 2 * y + 3; ++v, patch += 4 * channels) {
    const bool inside = v >= 0 && v < 2 * height;
    const T* from = big + (v * 2 * width + begin) * channels;
    T *to = patch, *first = patch + skipped * channels, *last = first + (inside ? end - begin : 0) * channels;
    for (; to < first; ++to) *to = T(0);
    for (; to < last; ++to) *to = *from++;
    for (; to < patch + 4 * channels; ++to) *to = T(0);
  }
}

}  // namespace
}  // namespace pygen::PYGEN_ISA
