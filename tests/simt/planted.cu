#include <cuda_runtime.h>

#include "../../csrc/ptx.h"
#include "planted.h"

namespace {

using namespace pygen;

constexpr int kThreads = 64, kWarps = kThreads / 32;

cudaLaunchConfig_t configuration(dim3 grid, dim3 block, size_t shared = 0) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  return config;
}

const char* text(cudaError_t error) { return error == cudaSuccess ? nullptr : cudaGetErrorString(error); }

struct SumShared {
  float of_warp[kWarps];
  bool last;
};

__global__ void block_sum_kernel(const float* x, float* partial, int* counter, float* out, int n, Bug bug) {
  SumShared& shared = static_shared<SumShared>();
  float* of_warp = shared.of_warp;
  const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
  float sum = 0.0f;
  for (int i = blockIdx.x * kThreads + thread; i < n; i += gridDim.x * kThreads) sum += x[i];
  if (bug != kMissingLanes || lane < 16)
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(bug == kNotInMask ? 0xFFFF : 0xFFFFFFFF, sum, step);
  if (lane == 0 && !(bug == kUninitialised && warp == 1)) of_warp[bug == kStaticOverrun ? warp + 3 : warp] = sum;
  if (bug != kNoSyncthreads && !(bug == kDivergentBarrier && warp == 1)) __syncthreads();
  if (thread == 0) {
    partial[bug == kBlocksRace ? 0 : blockIdx.x] = of_warp[0] + of_warp[1];
    if (bug != kNoFence) __threadfence();
    shared.last = atomicAdd(counter, 1) == static_cast<int>(gridDim.x) - 1;
    if (bug != kNoFence) __threadfence();
  }
  __syncthreads();
  if (shared.last && thread == kThreads - 1) {
    float total = 0.0f;
    for (unsigned i = 0; i < gridDim.x; ++i) total += partial[i];
    *out = total;
  }
}

__global__ void reverse_kernel(const float* x, float* y, Bug bug) {
  float* shared = shared_memory<float>();
  const int size = blockDim.x, thread = threadIdx.x, i = blockIdx.x * size + thread;
  shared[bug == kDynamicOverrun ? thread + 1 : thread] = x[bug == kReadOutside ? i + 1 : i];
  if (bug != kNoSyncthreads) __syncthreads();
  y[bug == kWriteOutside ? i + 1 : i] = shared[size - 1 - thread];
}

__global__ void ring_sums_kernel(const float* x, float* y, Bug bug) {
  float* shared = static_shared<float[32]>();
  const int lane = threadIdx.x;
  float sum = x[lane];
  shared[lane] = sum;
  if (bug == kReturnedLane) {
    if (lane == 31) return;
    uint32_t registers[2];
    ldmatrix(registers, shared + lane % 8 * 4);
  }
  for (int step = 1; step <= 2; step *= 2) {
    __syncwarp();
    const float other = shared[(lane + step) % 32];
    if (bug != kNoSyncwarp) __syncwarp();
    shared[lane] = sum += other;
  }
  y[lane] = sum;
}

constexpr int kColumns = 2 * kThreads, kStages = 2;

__global__ void column_sums_kernel(const float* x, float* y, int rows, Bug bug) {
  float* stages = shared_memory<float>();
  const int thread = threadIdx.x;
  const auto load = [&](int row) {
    const bool valid = row < rows;
    float* stage = bug == kNotShared ? y : stages + row % kStages * kColumns;
    if (thread < kColumns / 4) cp_async<16>(stage + thread * 4, x + (valid ? row * kColumns + thread * 4 : 0), valid);
    cp_async_commit();
  };
  float2 sum = {};
  load(0);
  if (bug == kNextTooEarly) load(1);
  for (int row = 0; row < rows; ++row) {
    if (bug != kNextTooEarly) load(row + 1);
    if (bug == kWaitOffByOne)
      cp_async_wait<kStages>();
    else
      cp_async_wait<kStages - 1>();
    __syncthreads();
    const float* stage = stages + row % kStages * kColumns;
    const float2 pair = *reinterpret_cast<const float2*>(stage + (bug == kMisaligned ? thread : 2 * thread));
    sum.x += pair.x;
    sum.y += pair.y;
    if (bug == kNextTooEarly) load(row + 2);
    if (bug != kNoPipelineBarrier) __syncthreads();
  }
  reinterpret_cast<float2*>(y)[thread] = sum;
}

}  // namespace

const char* block_sum(const float* x, float* partial, int* counter, float* out, int n, Bug bug) {
  if (n < 0) return "n must not be negative";
  cudaLaunchConfig_t config = configuration(3, kThreads);
  if (bug == kTooManyThreads) config.blockDim = dim3(64, 17);
  if (bug == kTooManyBlocks) config.gridDim = dim3(1, 65536);
  if (bug == kTooMuchShared) config.dynamicSmemBytes = (48 << 10) + 4;
  return text(cudaLaunchKernelEx(&config, block_sum_kernel, x, partial, counter, out, n, bug));
}

const char* reverse(const float* x, float* y, int n, Bug bug) {
  const cudaLaunchConfig_t config = configuration(n / 128, 128, 128 * sizeof(float));
  return text(cudaLaunchKernelEx(&config, reverse_kernel, x, y, bug));
}

const char* ring_sums(const float* x, float* y, Bug bug) {
  const cudaLaunchConfig_t config = configuration(1, 32);
  return text(cudaLaunchKernelEx(&config, ring_sums_kernel, x, y, bug));
}

const char* column_sums(const float* x, float* y, int rows, Bug bug) {
  // More than it needs, and more than a launch gets unasked.
  const size_t shared = 64 << 10;
  cudaFuncSetAttribute(column_sums_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared);
  const cudaLaunchConfig_t config = configuration(1, kThreads, shared);
  return text(cudaLaunchKernelEx(&config, column_sums_kernel, x, y, rows, bug));
}
