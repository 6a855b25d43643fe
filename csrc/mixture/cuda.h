// The CUDA kernels of the mixture family as their binding sees them. Everything lies on the device, contiguous; x
// [n, dims] is float, or double if `is_double`; the parameters [components, dims] are float64. Functions give an
// error's text or null.
#pragma once
#include <cstdint>

namespace pygen {

// Rows taken together, whose log joint densities fit the second-level cache.
int64_t diagonal_em_rows(int64_t n, int64_t components, bool is_double);

// What `workspace` must have.
const char* diagonal_em_bytes(int64_t rows, int64_t components, int64_t dims, bool is_double, int64_t* bytes);
const char* diagonal_log_joint_bytes(int64_t n, int64_t components, int64_t dims, bool is_double, int64_t* bytes);

// counts [components], first and second [components, dims] about the means, and the log-likelihood []. weights [n] may
// be null: 1. fast: one product in TF32 where there were three, and nothing done again.
const char* launch_diagonal_em(const void* x, const double* means, const double* precisions, const double* constant,
                               const double* weights, int64_t rows, int64_t n, int64_t components, int64_t dims,
                               bool is_double, bool fast, void* workspace, double* counts, double* first,
                               double* second, double* log_likelihood, void* stream);

// relative [components, n] in the type of x, largest [n].
const char* launch_diagonal_log_joint(const void* x, const double* means, const double* precisions,
                                      const double* constant, int64_t n, int64_t components, int64_t dims,
                                      bool is_double, bool settle, bool fast, void* workspace, void* relative,
                                      double* largest, void* stream);

}  // namespace pygen
