// Products of triangular factors with rows of noise, on the CPU. They leave out the half that is zero, and sum a row in
// the order of its columns whatever rows are beside it: its bits depend on nothing else. CMake compiles this file once
// per instruction set, PYGEN_ISA naming the namespace.
#include "../lanes.h"
#include "sampling.h"

namespace pygen::PYGEN_ISA {
namespace {

// Sums held in registers: rows times vectors, with room for the vectors loaded and one broadcast.
constexpr int kWide = 2, kRows = kRegisters == 32 ? 12 : 6;
template <class T>
constexpr int kColumns = kWide * Vector<T>::kLanes;

template <class T>
int64_t height(int64_t begin, int64_t size) {
  return begin + kColumns<T> < size ? begin + kColumns<T> : size;
}

template <class T>
void pack(const T* factor, int64_t size, T* packed) {
  for (int64_t begin = 0; begin < size; begin += kColumns<T>) {
    const int64_t rows = height<T>(begin, size);
    for (int64_t column = begin; column < begin + kColumns<T>; ++column)
      for (int64_t j = 0; j < rows; ++j)
        packed[j * kColumns<T> + column - begin] = column < size && j <= column ? factor[column * size + j] : 0;
    packed += rows * kColumns<T>;
  }
}

// The columns of a panel for the rows of a tile, `stride` from one of their rows in `out` to the next.
template <class T>
void multiply_tile(const T* panel, int64_t height, const T* tile, const T* mean, const int64_t* rows, int64_t count,
                   int64_t width, int64_t stride, T* out) {
  using V = Vector<T>;
  typename V::Lanes sums[kRows][kWide] = {};
  for (int64_t j = 0; j < height; ++j) {
    typename V::Lanes columns[kWide];
    for (int v = 0; v < kWide; ++v) V::load(panel + j * kColumns<T> + v * V::kLanes, columns[v]);
    for (int i = 0; i < kRows; ++i)
      for (int v = 0; v < kWide; ++v) sums[i][v] += columns[v] * tile[j * kRows + i];
  }
  for (int i = 0; i < count; ++i) {
    T values[kColumns<T>], *to = out + rows[i] * stride;
    for (int v = 0; v < kWide; ++v) V::store(sums[i][v], values + v * V::kLanes);
    for (int64_t j = 0; j < width; ++j) to[j] = values[j] + mean[j];
  }
}

template <class T>
void multiply(const T* packed, int64_t size, const T* mean, const int64_t* rows, int64_t count, T* scratch, T* out) {
  for (int64_t first = 0; first < count; first += kRows) {
    const T* row[kRows];
    for (int i = 0; i < kRows; ++i) row[i] = out + rows[first + i < count ? first + i : count - 1] * size;
    T* tile = scratch + first * size;
    for (int64_t j = 0; j < size; ++j)
      for (int i = 0; i < kRows; ++i) tile[j * kRows + i] = row[i][j];
  }
  for (int64_t begin = 0; begin < size; begin += kColumns<T>) {
    const int64_t below = height<T>(begin, size);
    for (int64_t first = 0; first < count; first += kRows)
      multiply_tile(packed, below, scratch + first * size, mean + begin, rows + first,
                    count - first < kRows ? count - first : kRows, below - begin, size, out + begin);
    packed += below * kColumns<T>;
  }
}

}  // namespace

const FactorKernels<float> kFactorFloat = {pack<float>, multiply<float>, kRows, kColumns<float>};
const FactorKernels<double> kFactorDouble = {pack<double>, multiply<double>, kRows, kColumns<double>};

}  // namespace pygen::PYGEN_ISA
