// Entries in the order of their groups on the GPU: a counting sort, stable, so that the order depends on nothing else.
#pragma once
#include "../ptx.h"

namespace pygen {

// kRun: entries that a warp puts in place at the least.
constexpr int kOrderThreads = 256, kScanThreads = 1024, kScanned = 4, kRun = 512;

// Of n entries. A segment is what a warp takes. A group outside [0, n_groups) counts as the nearest inside.
struct Order {
  const int64_t* groups;  // [n]
  int64_t n, n_groups, segments, segment;
  unsigned long long* table;  // [n_groups, segments], zero at first; at last where each one's entries end
  int64_t* entries;           // [n]
  const int* active;          // nothing is done where this is 0; null: 1

  __device__ __forceinline__ bool idle() const { return active != nullptr && *active == 0; }
  __device__ __forceinline__ bool knows(int64_t entry) const { return groups[entry] >= 0 && groups[entry] < n_groups; }
  __device__ __forceinline__ int64_t group(int64_t entry) const {
    const int64_t group = groups[entry];
    return group < 0 ? 0 : group < n_groups ? group : n_groups - 1;
  }
  __device__ __forceinline__ int64_t end(int64_t group) const {
    return static_cast<int64_t>(table[(group + 1) * segments - 1]);
  }
  __device__ __forceinline__ int64_t begin(int64_t group) const { return group == 0 ? 0 : end(group - 1); }
};

__global__ void __launch_bounds__(kOrderThreads) count_kernel(Order a) {
  const int64_t i = int64_t{blockIdx.x} * kOrderThreads + threadIdx.x;
  if (a.idle() || i >= a.n) return;
  atomicAdd(a.table + a.group(i) * a.segments + i / a.segment, 1ull);
}

// One block. Each number of the table becomes the sum of those before it.
__global__ void __launch_bounds__(kScanThreads) scan_kernel(Order a) {
  constexpr int kWarps = kScanThreads / 32;
  struct Sums {
    unsigned long long of_warps[2][kWarps];  // in turn: a warp may be one round ahead
  };
  Sums& sums = static_shared<Sums>();
  if (a.idle()) return;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t size = a.n_groups * a.segments;
  unsigned long long before = 0;
  int turn = 0;
  for (int64_t begin = 0; begin < size; begin += kScanThreads * kScanned, turn = 1 - turn) {
    const int64_t first = begin + threadIdx.x * kScanned;
    unsigned long long values[kScanned], own = 0;
#pragma unroll
    for (int i = 0; i < kScanned; ++i) {
      values[i] = first + i < size ? a.table[first + i] : 0;
      own += values[i];
    }
    unsigned long long until = own;  // of the warp, up to this lane
    for (int step = 1; step < 32; step *= 2) {
      const unsigned long long left = __shfl_up_sync(~0u, until, step);
      if (lane >= step) until += left;
    }
    if (lane == 31) sums.of_warps[turn][warp] = until;
    __syncthreads();
    unsigned long long sum = before + until - own;
    for (int other = 0; other < kWarps; ++other) {
      const unsigned long long number = sums.of_warps[turn][other];
      if (other < warp) sum += number;
      before += number;
    }
#pragma unroll
    for (int i = 0; i < kScanned; ++i) {
      if (first + i < size) a.table[first + i] = sum;
      sum += values[i];
    }
  }
}

// A warp puts the entries of a segment in place, 32 at a time.
__global__ void __launch_bounds__(kOrderThreads) place_kernel(Order a) {
  const int64_t segment = (int64_t{blockIdx.x} * kOrderThreads + threadIdx.x) / 32;
  if (a.idle() || segment >= a.segments) return;
  const int lane = threadIdx.x % 32;
  const int64_t first = segment * a.segment, last = first + a.segment < a.n ? first + a.segment : a.n;
  for (int64_t begin = first; begin < last; begin += 32) {
    const int64_t entry = begin + lane;
    const bool known = entry < last;
    const int64_t group = known ? a.group(entry) : -1;
    const unsigned alike = __match_any_sync(~0u, group), before = alike & ((1u << lane) - 1);
    unsigned long long* next = a.table + (known ? group : 0) * a.segments + segment;
    const unsigned long long place = *next;
    __syncwarp();
    if (known) a.entries[place + __popc(before)] = entry;
    if (known && before == 0) *next = place + __popc(alike);
    __syncwarp();
  }
}

}  // namespace pygen
