// The kernels of the gaussian family as their binding sees them: raw pointers, sizes, a stream.
#pragma once
#include "../philox.h"
#include "../real.h"

namespace pygen {

// Writes draws 4 * begin to min(4 * end, n) of a call that begins at `state`; `out` is that call's first draw.
using FillFloat = void (*)(State state, int64_t begin, int64_t end, int64_t n, float* out);
using FillDouble = void (*)(State state, int64_t begin, int64_t end, int64_t n, double* out);

struct NormalKernels {
  const char* instruction_set;
  FillFloat fill_float;
  FillDouble fill_double;
};

// cpu.cpp, compiled once per instruction set.
namespace baseline {
extern const NormalKernels kNormal;
}
namespace avx2 {
extern const NormalKernels kNormal;
}
namespace avx512 {
extern const NormalKernels kNormal;
}

// The kernels for the best instruction set of this processor (ops.cpp).
const NormalKernels& normal_kernels();

// cuda.cu: n draws into `out`, then advances the offset of `state` (seed, offset on the device), both on `stream`.
// Returns the CUDA error's text, or null.
const char* launch_normal(int64_t* state, void* out, int64_t n, Real dtype, void* stream);
// The same words by the GPU's approximations of logarithm, sine and cosine; doubles exactly.
const char* launch_fast_normal(int64_t* state, void* out, int64_t n, Real dtype, void* stream);

}  // namespace pygen
