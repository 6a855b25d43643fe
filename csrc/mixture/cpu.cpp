// Moments on the CPU. CMake compiles this file once per instruction set, PYGEN_ISA naming the namespace; the inner loop
// over columns is written for the compiler to vectorise.
#include "mixture.h"

namespace pygen::PYGEN_ISA {
namespace {

template <class T>
void moments(const MomentsArguments<T>& a, int64_t begin, int64_t end) {
  const int64_t columns = end - begin;
  int64_t pair = 0;
  for (int64_t k = 0; k < a.components; ++k) {
    const double* __restrict__ mean = a.means + k * a.dims + begin;
    double* __restrict__ first = a.first + k * a.dims + begin;
    double* __restrict__ second = a.second + k * a.dims + begin;
    for (int64_t j = 0; j < columns; ++j) first[j] = second[j] = 0;
    for (const int64_t last = pair + a.sizes[k]; pair < last; ++pair) {
      const T* __restrict__ row = a.x + a.rows[pair] * a.dims + begin;
      const double weight = a.weights[pair];
      for (int64_t j = 0; j < columns; ++j) {
        const double difference = static_cast<double>(row[j]) - mean[j];
        const double weighted = weight * difference;
        first[j] += weighted;
        second[j] += weighted * difference;
      }
    }
  }
}

}  // namespace

const MomentsKernels kMoments = {moments<float>, moments<double>};

}  // namespace pygen::PYGEN_ISA
