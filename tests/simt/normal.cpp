// csrc/gaussian/kernel.cuh on the CPU: the kernel itself, its threads one after another, the last block first.
#include "csrc/gaussian/kernel.cuh"

namespace {

template <class T>
void run(int64_t* state, void* out, int64_t n, unsigned grid) {
  gridDim.x = grid;
  for (blockIdx.x = grid; blockIdx.x-- > 0;)
    for (threadIdx.x = 0; threadIdx.x < pygen::kThreads; ++threadIdx.x)
      pygen::normal_kernel<T>(state, static_cast<T*>(out), n);
  pygen::advance_kernel(state, (n + 3) / 4);
}

}  // namespace

extern "C" void normal(int64_t* state, void* out, int64_t n, unsigned grid, int type) {
  const auto runs = {run<float>, run<double>, run<__half>, run<__nv_bfloat16>};
  runs.begin()[type](state, out, n, grid);
}
