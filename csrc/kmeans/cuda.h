// The CUDA kernels of the kmeans family as their binding sees them. Everything lies on the device, contiguous; x
// [n, dims] is float, or double if `is_double`; means and centres are float64. Functions give an error's text or null.
#pragma once
#include <cstdint>

namespace pygen {

// What `workspace` must have.
const char* moments_bytes(int64_t entries, int64_t groups, int64_t dims, int64_t* bytes);

// Entry i is of group groups[i] and about row rows[i] (null: i), with weight weights[i] (null: 1). counts [n_groups],
// first and second [n_groups, dims]. What is outside makes a group's sums NaN: that which is nearest.
const char* launch_moments(const void* x, const int64_t* groups, const double* means, const double* weights,
                           const int64_t* rows, int64_t n, int64_t entries, int64_t n_groups, int64_t dims,
                           bool is_double, void* workspace, double* counts, double* first, double* second,
                           void* stream);

const char* closer_bytes(int64_t n_centres, int64_t dims, bool is_double, int64_t* bytes);

// found [n_centres, n]: squared distances, or closest [n] where that is less.
const char* launch_closer(const void* x, const double* centres, const double* closest, int64_t n, int64_t dims,
                          int64_t n_centres, bool is_double, void* workspace, double* found, void* stream);

const char* lloyd_bytes(int64_t n, int64_t dims, int64_t n_centres, bool is_double, int64_t* bytes);

// All steps that there may be are launched; those after the last that is needed return at once. weights [n] may be
// null:
// 1. labels [n], moved [n_centres, dims]; n and max_iter are at least 1.
const char* launch_lloyd(const void* x, const double* centres, const double* weights, int64_t n, int64_t dims,
                         int64_t n_centres, int64_t max_iter, double threshold, bool is_double, void* workspace,
                         int64_t* labels, double* moved, void* stream);

}  // namespace pygen
