// csrc/sampling's kernels for one instruction set, PYGEN_ISA, behind C functions.
#include <vector>

#include "csrc/sampling/cpu.cpp"
#include "csrc/sampling/product.cpp"

namespace {

using namespace pygen;

// Row i from component index[i], whose deviations [columns] or factor [columns, columns] it is drawn by.
template <class T>
void sample(const SamplingKernels<T>& sampling, const FactorKernels<T>& kernels, const int64_t* state, int64_t n,
            int64_t columns, const int64_t* index, const T* means, const T* scales, bool diagonal, T* out) {
  const State start = {static_cast<uint64_t>(state[0]), static_cast<uint64_t>(state[1])};
  if (diagonal) return sampling.diagonal(start, {index, means, scales, columns, columns, false, out}, 0, n);
  sampling.fill_rows(start, columns, 0, n, out);
  std::vector<T> packed((columns + kernels.columns) * columns), scratch(kernels.rows * columns);
  for (int64_t i = 0; i < n; ++i) {
    kernels.pack(scales + index[i] * columns * columns, columns, packed.data());
    kernels.multiply(packed.data(), columns, means + index[i] * columns, &i, 1, scratch.data(), out);
  }
}

}  // namespace

extern "C" void sample_float(const int64_t* state, int64_t n, int64_t columns, const int64_t* index, const float* means,
                             const float* scales, bool diagonal, float* out) {
  sample(PYGEN_ISA::kSamplingFloat, PYGEN_ISA::kFactorFloat, state, n, columns, index, means, scales, diagonal, out);
}

extern "C" void sample_double(const int64_t* state, int64_t n, int64_t columns, const int64_t* index,
                              const double* means, const double* scales, bool diagonal, double* out) {
  sample(PYGEN_ISA::kSamplingDouble, PYGEN_ISA::kFactorDouble, state, n, columns, index, means, scales, diagonal, out);
}
