// What warps and the instructions of csrc/ptx.h compute, one warp each (test_instructions.py).
#pragma once

// c [16, 8] = a [16, k] b [k, 8] by one mma: type 0 bfloat16 and 1 half with k = 16, 2 float32, rounded to tf32, with
// k = 8. 16-bit operands go by cp.async and ldmatrix, b by the transposed form.
const char* product(int type, const void* a, const void* b, float* c);

// c [8, 8] = a [8, 4] b [4, 8], all in float64.
const char* double_product(const double* a, const double* b, double* c);

// One mma on registers as they are: a [32, 4], b [32, 2], c [32, 4], by lane.
const char* fragment_product(int type, const unsigned* a, const unsigned* b, float* c);

// y [32, 4] = the first rows of x [rows, 4], and zeros where there are none.
const char* copy_rows(const float* x, float* y, int rows);

// Of x [32]: shuffled [6, 32], votes [36], atomics [5] (updated).
const char* warp_functions(const float* x, float* shuffled, unsigned* votes, float* atomics);

// bits [n, 3] of x [n, 2]: tf32 of the first, both as bfloat16, both as half.
const char* conversions(const float* x, unsigned* bits, int n);

// y [40] = x [40] with neighbours exchanged, by 48 threads of which 40 do not return at once.
const char* exchange(const float* x, float* y);
