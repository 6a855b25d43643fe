// The CUDA kernels of full covariances as their bindings see them. Each launches on `stream`, all tensors contiguous,
// and returns the error's text, or null. dtype: of x, kFloat or kDouble; fast: float by one product in TF32, not three.
#pragma once
#include "../gaussian/gaussian.h"

namespace pygen {

// norms [n] of x [n, size], by centre [size] and factor [size, columns], all of one dtype. heights: columns / 32
// rounded up; they are written.
const char* launch_whitened_norms(const void* x, int64_t n, int64_t size, const void* centre, const void* factor,
                                  int64_t columns, int64_t* heights, Real dtype, bool fast, void* norms, void* stream);

// Blocks that together fill any GPU take the rows in so many parts, whatever the GPU: results are the same on all.
int64_t scatter_parts(int64_t dims, int64_t components);
// Adds to first [dims] and second [dims, dims] what n rows of x [total, dims] have to add: row i, or rows[i], with
// weights[i]. A row out of range gives NaN. workspace: parts * (dims * dims + dims).
const char* launch_add_scatter(const void* x, int64_t total, int64_t dims, const double* mean, const double* weights,
                               const int64_t* rows, int64_t n, Real dtype, double* workspace, double* first,
                               double* second, void* stream);

// Upper triangular factors U [K, dims, dims] with U U^T the inverse of a matrix, and whether it is positive definite
// [K]. The matrices [K, dims, dims] are spoilt.
const char* launch_inverse_factors(double* matrices, int64_t components, int64_t dims, double* factors, bool* positive,
                                   void* stream);

// Rows are taken by chunks of so many.
struct FullWorkspace {
  int64_t bytes, chunk;
};
FullWorkspace full_em_workspace(int64_t n, int64_t dims, int64_t components, Real dtype);
// A pass of EM over x [n, dims]: means [K, dims], factors [K, dims, dims] and constant [K] give the posterior, weights
// [n] (null: 1) those of the rows; counts [K], first [K, dims], second [K, dims, dims] and log_likelihood are written.
// The workspace is 16-byte aligned.
const char* launch_full_em(const void* x, int64_t n, int64_t dims, const double* means, const double* factors,
                           const double* constant, const double* weights, int64_t components, Real dtype, bool fast,
                           void* workspace, int64_t chunk, double* counts, double* first, double* second,
                           double* log_likelihood, void* stream);

}  // namespace pygen
