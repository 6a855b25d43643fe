// Kernels with the classic mistakes: each function makes the one it is asked for, or none (test_harness.py).
#pragma once

enum Bug {
  kNone,
  kStaticOverrun,
  kNoSyncthreads,
  kNotInMask,
  kMissingLanes,
  kUninitialised,
  kDivergentBarrier,
  kBlocksRace,
  kNoFence,
  kTooManyThreads,
  kTooManyBlocks,
  kTooMuchShared,
  kDynamicOverrun,
  kReadOutside,
  kWriteOutside,
  kMisaligned,
  kReturnedLane,
  kNotShared,
  kNoSyncwarp,
  kNoPipelineBarrier,
  kWaitOffByOne,
  kNextTooEarly,
};

// out [1] = the sum of x [n], by three blocks. partial: [3]; counter: [1], 0.
const char* block_sum(const float* x, float* partial, int* counter, float* out, int n, Bug bug);

// y [n] = every 128 numbers of x [n] reversed. n is a multiple of 128.
const char* reverse(const float* x, float* y, int n, Bug bug);

// y [32] = the sums of four neighbours in a ring, x [32]: y[i] = x[i] + x[i + 1] + x[i + 2] + x[i + 3].
const char* ring_sums(const float* x, float* y, Bug bug);

// y [128] = the column sums of x [rows, 128].
const char* column_sums(const float* x, float* y, int rows, Bug bug);
