#include <cuda_runtime.h>

#include "../../csrc/ptx.h"
#include "instructions.h"

namespace {

using namespace pygen;

__device__ void multiply(int type, float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if (type == 0) mma_bf16(c, a, b0, b1);
  if (type == 1) mma_half(c, a, b0, b1);
  if (type == 2) mma_tf32(c, a, b0, b1);
}

__device__ void store(const float (&sums)[4], float* c) {
  const int row = threadIdx.x / 4, column = threadIdx.x % 4 * 2;
  for (int i = 0; i < 4; ++i) c[(row + i / 2 * 8) * 8 + column + i % 2] = sums[i];
}

__global__ void product_kernel(int type, const uint16_t* a, const uint16_t* b, float* c) {
  uint16_t *shared_a = shared_memory<uint16_t>(), *shared_b = shared_a + 16 * 16;
  const int lane = threadIdx.x;
  cp_async<16>(shared_a + lane * 8, a + lane * 8);
  if (lane < 16) cp_async<16>(shared_b + lane * 8, b + lane * 8);
  cp_async_commit();
  cp_async_wait<0>();
  __syncwarp();
  uint32_t a_registers[4], b_registers[2];
  ldmatrix(a_registers, shared_a + lane % 16 * 16 + lane / 16 * 8);
  ldmatrix_transposed(b_registers, shared_b + lane % 16 * 8);
  float sums[4] = {};
  multiply(type, sums, a_registers, b_registers[0], b_registers[1]);
  store(sums, c);
}

__global__ void product_tf32_kernel(const float* a, const float* b, float* c) {
  const int group = threadIdx.x / 4, t = threadIdx.x % 4;
  uint32_t registers[4];
  for (int i = 0; i < 4; ++i) registers[i] = to_tf32(a[(group + i % 2 * 8) * 8 + t + i / 2 * 4]);
  float sums[4] = {};
  mma_tf32(sums, registers, to_tf32(b[t * 8 + group]), to_tf32(b[(t + 4) * 8 + group]));
  store(sums, c);
}

__global__ void double_product_kernel(const double* a, const double* b, double* c) {
  const int group = threadIdx.x / 4, t = threadIdx.x % 4;
  double sums[2] = {};
  mma_double(sums, a[group * 4 + t], b[t * 8 + group]);
  for (int i = 0; i < 2; ++i) c[group * 8 + 2 * t + i] = sums[i];
}

__global__ void fragment_kernel(int type, const unsigned* a, const unsigned* b, float* c) {
  const int lane = threadIdx.x;
  uint32_t registers[4];
  float sums[4];
  for (int i = 0; i < 4; ++i) {
    registers[i] = a[4 * lane + i];
    sums[i] = c[4 * lane + i];
  }
  multiply(type, sums, registers, b[2 * lane], b[2 * lane + 1]);
  for (int i = 0; i < 4; ++i) c[4 * lane + i] = sums[i];
}

__global__ void copy_rows_kernel(const float* x, float* y, int rows) {
  float* shared = shared_memory<float>();
  const int lane = threadIdx.x;
  const bool valid = lane < rows;
  const float* row = valid ? x + 4 * lane : nullptr;
  cp_async<4>(shared + 4 * lane, row, valid);
  cp_async<4>(shared + 4 * lane + 1, valid ? row + 1 : nullptr, valid);
  cp_async<8>(shared + 4 * lane + 2, valid ? row + 2 : nullptr, valid);
  cp_async_commit();
  cp_async_wait<0>();
  for (int i = 0; i < 4; ++i) y[4 * lane + i] = shared[4 * lane + i];
}

__global__ void warp_functions_kernel(const float* x, float* shuffled, unsigned* votes, float* atomics) {
  const int lane = threadIdx.x;
  const float value = x[lane];
  shuffled[lane] = __shfl_sync(~0u, value, (lane * 7 + 3) % 32);
  shuffled[32 + lane] = __shfl_xor_sync(~0u, value, 5);
  shuffled[64 + lane] = __shfl_down_sync(~0u, value, 3);
  shuffled[96 + lane] = __shfl_up_sync(~0u, value, 3);
  shuffled[128 + lane] = __shfl_down_sync(~0u, value, 3, 8);
  // Each half of the warp on its own, in its own branch.
  if (lane < 16)
    shuffled[160 + lane] = __shfl_xor_sync(0x0000FFFF, value, 1);
  else
    shuffled[160 + lane] = __shfl_xor_sync(0xFFFF0000, value, 2);
  const unsigned positive = __ballot_sync(~0u, value > 0.0f);
  const bool any = __any_sync(~0u, lane == 5), all = __all_sync(~0u, lane != 5), none = __any_sync(~0u, lane == 32);
  if (lane == 0) {
    votes[0] = positive;
    votes[1] = any;
    votes[2] = all;
    votes[3] = none;
  }
  votes[4 + lane] = __match_any_sync(~0u, lane % 5);
  atomicAdd(atomics, value);
  atomicAdd(reinterpret_cast<int*>(atomics + 1), lane);
  atomicMax(reinterpret_cast<int*>(atomics + 2), lane);
  atomicMin(reinterpret_cast<int*>(atomics + 3), -lane);
  // One lane alone finds the zero.
  if (atomicCAS(reinterpret_cast<unsigned*>(atomics + 4), 0u, 7u) == 0) atomicExch(atomics, 0.5f);
}

__global__ void conversions_kernel(const float* x, unsigned* bits, int n) {
  for (int i = threadIdx.x; i < n; i += blockDim.x) {
    bits[3 * i] = to_tf32(x[2 * i]);
    bits[3 * i + 1] = pack_bf16(x[2 * i], x[2 * i + 1]);
    bits[3 * i + 2] = pack_half(x[2 * i], x[2 * i + 1]);
  }
}

__global__ void exchange_kernel(const float* x, float* y) {
  float* shared = static_shared<float[40]>();
  const int thread = threadIdx.x;
  if (thread >= 40) return;
  shared[thread] = x[39 - thread];
  __syncthreads();
  y[thread] = __shfl_xor_sync(~0u, shared[39 - thread], 1);
}

template <class... Parameters, class... Arguments>
const char* launch(unsigned threads, void (*kernel)(Parameters...), Arguments... arguments) {
  cudaLaunchConfig_t config = {};
  config.gridDim = 1;
  config.blockDim = threads;
  config.dynamicSmemBytes = 1024;
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, arguments...);
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace

const char* product(int type, const void* a, const void* b, float* c) {
  if (type == 2) return launch(32, product_tf32_kernel, static_cast<const float*>(a), static_cast<const float*>(b), c);
  return launch(32, product_kernel, type, static_cast<const uint16_t*>(a), static_cast<const uint16_t*>(b), c);
}

const char* double_product(const double* a, const double* b, double* c) {
  return launch(32, double_product_kernel, a, b, c);
}

const char* fragment_product(int type, const unsigned* a, const unsigned* b, float* c) {
  return launch(32, fragment_kernel, type, a, b, c);
}

const char* copy_rows(const float* x, float* y, int rows) { return launch(32, copy_rows_kernel, x, y, rows); }

const char* warp_functions(const float* x, float* shuffled, unsigned* votes, float* atomics) {
  return launch(32, warp_functions_kernel, x, shuffled, votes, atomics);
}

const char* conversions(const float* x, unsigned* bits, int n) { return launch(32, conversions_kernel, x, bits, n); }

const char* exchange(const float* x, float* y) { return launch(48, exchange_kernel, x, y); }
