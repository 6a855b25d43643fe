#include <initializer_list>

#include "../launch.h"
#include "cuda.h"
#include "factor.cuh"
#include "kernel.cuh"
#include "posterior.cuh"
#include "scatter.cuh"

namespace pygen {
namespace {

// There are blocks for all rows, however few of them a component has: the host does not know.
template <class Out>
void whiten(const Whitening<float, Out>& a, bool fast, Launcher& launch) {
  const int64_t blocks = divided(divided(a.n, WhitenTraits::kRows), kTogether) * kTogether * a.components;
  const bool whole = a.size % 4 == 0 && a.columns % 4 == 0 && is_aligned(a.x) && is_aligned(a.factor);
  const auto run = [&](auto* kernel) { launch(kernel, blocks, WhitenTraits::kThreads, sizeof(WhitenShared), a); };
  if (fast)
    run(whole ? whiten_kernel<Out, true, true> : whiten_kernel<Out, false, true>);
  else
    run(whole ? whiten_kernel<Out, true, false> : whiten_kernel<Out, false, false>);
}

void whiten(const Whitening<double, double>& a, bool /*fast*/, Launcher& launch) {
  const int64_t blocks = divided(divided(a.n, DoubleTraits::kSide), kTogether) * kTogether * a.components;
  launch(whiten_double_kernel, blocks, DoubleTraits::kThreads, 0, a);
}

template <class T>
void scatter(Scattering<T> a, int64_t components, Launcher& launch) {
  a.tiles = double_tiles(a.dims);
  launch(scatter_kernel<T>, a.tiles * components * a.parts, DoubleTraits::kThreads, 0, a, components);
}

// A part of the squares bounds a density from above. Columns of the factors for that, about an eighth, spread over the
// features, since each tells how far a pixel is from what the pixels before it predict; 0 where bounds do not pay. On
// MNIST with ten components, that costs two factors' work a row, and leaves 2.4 components to know in full.
int64_t bounding_columns(int64_t dims, int64_t components) {
  constexpr int64_t kShare = 8, kBoundedFrom = 256, kTile = WhitenTraits::kColumns;
  return components == 1 || dims < kBoundedFrom ? 0 : (dims / kShare + kTile / 2) / kTile * kTile;
}

template <class T>
struct FullArrays {
  T *factors, *centre, *rest;  // float: what is prepared
  int64_t* heights;
  double* joint;
  int64_t *rows, *sizes;
  double *totals, *first, *second;  // the sums: of parts, where there are several
  T* bounding;
  int64_t* bounding_heights;
  int* best;
};

template <class T>
FullArrays<T> take_full(Taker& taker, int64_t chunk, int64_t dims, int64_t components) {
  constexpr bool kSplit = sizeof(T) == sizeof(float);
  const int64_t parts = scatter_parts(dims, components), vector = components * dims;
  const int64_t bounding = bounding_columns(dims, components);
  FullArrays<T> w = {};
  w.factors = taker.take<T>(kSplit ? vector * dims : 0);
  w.centre = taker.take<T>(kSplit ? vector : 0);
  w.rest = taker.take<T>(kSplit ? vector : 0);
  w.heights = taker.take<int64_t>(components * strips(dims));
  w.joint = taker.take<double>(components * chunk);
  w.rows = taker.take<int64_t>(components * chunk);
  w.sizes = taker.take<int64_t>(components);
  w.totals = taker.take<double>(divided(chunk, kRowThreads));
  w.first = taker.take<double>(parts == 1 ? 0 : parts * vector);
  w.second = taker.take<double>(parts == 1 ? 0 : parts * vector * dims);
  w.bounding = taker.take<T>(vector * bounding);
  w.bounding_heights = taker.take<int64_t>(components * strips(bounding));
  w.best = taker.take<int>(bounding == 0 ? 0 : chunk);
  return w;
}

// Centres and factors in T.
void prepare(Whitening<float, double>& a, const double* means, const double* factors, const FullArrays<float>& w,
             Launcher& launch) {
  launch(prepare_factor_kernel<double, float>, a.components * strips(a.columns), kPrepareThreads, 0, factors, a.size,
         a.columns, a.columns, w.heights, w.factors);
  launch(split_means_kernel<float>, divided(a.components * a.size, kRowThreads), kRowThreads, 0, means,
         a.components * a.size, w.centre, w.rest);
  a.factor = w.factors;
  a.centre = w.centre;
  a.rest = w.rest;
}
void prepare(Whitening<double, double>& a, const double* means, const double* factors, const FullArrays<double>& w,
             Launcher& launch) {
  launch(prepare_factor_kernel<double, double>, a.components * strips(a.columns), kPrepareThreads, 0, factors, a.size,
         a.columns, a.columns, w.heights, static_cast<double*>(nullptr));
  a.factor = factors;
  a.centre = means;
}

// The columns that bound.
template <class T>
Whitening<T, double> prepare_bounding(Whitening<T, double> a, const double* factors, const FullArrays<T>& w,
                                      Launcher& launch) {
  const int64_t stride = a.columns;
  a.columns = bounding_columns(a.size, a.components);
  launch(prepare_factor_kernel<double, T>, a.components * strips(a.columns), kPrepareThreads, 0, factors, a.size,
         stride, a.columns, w.bounding_heights, w.bounding);
  a.factor = w.bounding;
  a.heights = w.bounding_heights;
  return a;
}

// Log joint densities of a chunk, or bounds of those that cannot matter: the component with the largest bound is known
// in full first, and shows which of the others may.
template <class T>
void log_joint(Whitening<T, double> whitening, Whitening<T, double> bounding, bool fast, int64_t* rows, int64_t* sizes,
               int* best, Launcher& launch) {
  if (bounding.columns == 0) return whiten(whitening, fast, launch);
  bounding.x = whitening.x;
  bounding.n = whitening.n;
  whiten(bounding, fast, launch);
  launch(best_kernel, divided(whitening.n, kRowThreads), kRowThreads, 0, whitening.out, whitening.components,
         whitening.n, best);
  whitening.rows = rows;
  whitening.counts = sizes;
  for (const bool others : {false, true}) {
    launch(candidates_kernel, whitening.components, kCompactThreads, 0, whitening.out, best, whitening.n, others, rows,
           sizes);
    whiten(whitening, fast, launch);
  }
}

template <class T>
void full_em(const T* x, int64_t n, Whitening<T, double> whitening, Scattering<T> scattering, const double* means,
             const double* factors, const double* weights, bool fast, void* workspace, int64_t chunk, double* counts,
             double* log_likelihood, Launcher& launch) {
  const int64_t dims = scattering.dims, components = whitening.components;
  Taker taker = {reinterpret_cast<uintptr_t>(workspace)};
  const FullArrays<T> w = take_full<T>(taker, chunk, dims, components);
  double *first = scattering.first, *second = scattering.second;
  if (scattering.parts > 1) {
    scattering.first = w.first;
    scattering.second = w.second;
  }
  constexpr auto kSize = static_cast<int64_t>(sizeof(double));
  const int64_t vectors = scattering.parts * components * dims * kSize, total_blocks = divided(chunk, kRowThreads);
  launch.clear(counts, components * kSize);
  launch.clear(w.totals, total_blocks * kSize);
  launch.clear(scattering.first, vectors);
  launch.clear(scattering.second, vectors * dims);
  prepare(whitening, means, factors, w, launch);
  whitening.heights = w.heights;
  whitening.out = w.joint;
  const Whitening<T, double> bounding = prepare_bounding(whitening, factors, w, launch);
  scattering.mean = means;
  scattering.rows = w.rows;
  scattering.weights = w.joint;
  scattering.counts = w.sizes;
  for (int64_t start = 0; start < n; start += chunk) {
    const int64_t number = n - start < chunk ? n - start : chunk;
    whitening.x = x + start * dims;
    whitening.n = scattering.stride = number;
    log_joint(whitening, bounding, fast, w.rows, w.sizes, w.best, launch);
    launch(posterior_kernel, divided(number, kRowThreads), kRowThreads, 0, w.joint, components, number,
           weights == nullptr ? nullptr : weights + start, w.totals);
    launch(compact_kernel, components, kCompactThreads, 0, w.joint, number, start, w.rows, w.sizes, counts);
    scatter(scattering, components, launch);
  }
  launch(total_kernel, 1, kRowThreads, 0, w.totals, total_blocks, log_likelihood);
  launch(sum_parts_kernel, divided(components * dims * dims, kSumThreads), kSumThreads, 0, scattering.first,
         scattering.second, scattering.parts, components, dims, false, first, second);
}

}  // namespace

const char* launch_whitened_norms(const void* x, int64_t n, int64_t size, const void* centre, const void* factor,
                                  int64_t columns, int64_t* heights, Real dtype, bool fast, void* norms, void* stream) {
  Launcher launch = {static_cast<cudaStream_t>(stream)};
  const auto run = [&](auto type) {
    using T = decltype(type);
    const auto* factors = static_cast<const T*>(factor);
    launch(prepare_factor_kernel<T, T>, strips(columns), kPrepareThreads, 0, factors, size, columns, columns, heights,
           static_cast<T*>(nullptr));
    Whitening<T, T> a = {};
    a.x = static_cast<const T*>(x);
    a.n = n;
    a.size = size;
    a.centre = static_cast<const T*>(centre);
    a.factor = factors;
    a.heights = heights;
    a.columns = columns;
    a.components = 1;
    a.out = static_cast<T*>(norms);
    whiten(a, fast, launch);
  };
  dtype == Real::kFloat ? run(float()) : run(double());
  return error_text(launch.error);
}

int64_t scatter_parts(int64_t dims, int64_t components) {
  constexpr int64_t kBlocks = 264;  // two for each of the H200's 132 multiprocessors
  const int64_t blocks = double_tiles(dims) * components;
  return blocks == 0 || blocks >= kBlocks ? 1 : kBlocks / blocks;
}

const char* launch_add_scatter(const void* x, int64_t total, int64_t dims, const double* mean, const double* weights,
                               const int64_t* rows, int64_t n, Real dtype, double* workspace, double* first,
                               double* second, void* stream) {
  Launcher launch = {static_cast<cudaStream_t>(stream)};
  const int64_t parts = scatter_parts(dims, 1);
  double *second_parts = workspace, *first_parts = workspace + parts * dims * dims;
  launch.clear(workspace, parts * (dims * dims + dims) * static_cast<int64_t>(sizeof(double)));
  const auto run = [&](auto type) {
    using T = decltype(type);
    Scattering<T> a = {};
    a.x = static_cast<const T*>(x);
    a.total = total;
    a.dims = dims;
    a.mean = mean;
    a.rows = rows;
    a.weights = weights;
    a.stride = n;
    a.parts = parts;
    a.first = first_parts;
    a.second = second_parts;
    scatter(a, 1, launch);
  };
  dtype == Real::kFloat ? run(float()) : run(double());
  launch(sum_parts_kernel, divided(dims * dims, kSumThreads), kSumThreads, 0, first_parts, second_parts, parts,
         int64_t{1}, dims, true, first, second);
  return error_text(launch.error);
}

const char* launch_inverse_factors(double* matrices, int64_t components, int64_t dims, double* factors, bool* positive,
                                   void* stream) {
  Launcher launch = {static_cast<cudaStream_t>(stream)};
  launch.clear(factors, components * dims * dims * static_cast<int64_t>(sizeof(double)));
  const int64_t sides = dims == 0 ? 1 : double_sides(dims);  // an empty matrix, too, is told to be positive definite
  for (int64_t panel = 0; panel < sides; ++panel) {
    launch(diagonal_factor_kernel, components, kDiagonalThreads, 0, matrices, factors, dims, panel, positive);
    const int64_t below = sides - panel - 1;
    launch(eliminate_kernel<true>, components * (sides - 1), DoubleTraits::kThreads, 0, matrices, factors, dims, panel);
    launch(eliminate_kernel<false>, components * (below * (below + 1) / 2 + below * (panel + 1)),
           DoubleTraits::kThreads, 0, matrices, factors, dims, panel);
  }
  return error_text(launch.error);
}

FullWorkspace full_em_workspace(int64_t n, int64_t dims, int64_t components, Real dtype) {
  // A chunk's responsibilities and their rows, which several kernels pass on, stay in the second-level cache (50 MB);
  // its rows need not, and there are enough of them that a tenth of all components' blocks fills the GPU.
  constexpr int64_t kPairBytes = int64_t{24} << 20, kLeast = 128;
  int64_t chunk = kPairBytes / (16 * components);
  chunk = chunk < kLeast ? kLeast : chunk / kLeast * kLeast;
  if (n < chunk) chunk = n;
  Taker taker = {0};
  if (dtype == Real::kFloat)
    take_full<float>(taker, chunk, dims, components);
  else
    take_full<double>(taker, chunk, dims, components);
  return {taker.used, chunk};
}

const char* launch_full_em(const void* x, int64_t n, int64_t dims, const double* means, const double* factors,
                           const double* constant, const double* weights, int64_t components, Real dtype, bool fast,
                           void* workspace, int64_t chunk, double* counts, double* first, double* second,
                           double* log_likelihood, void* stream) {
  Launcher launch = {static_cast<cudaStream_t>(stream)};
  const auto run = [&](auto type) {
    using T = decltype(type);
    Whitening<T, double> whitening = {};
    whitening.size = whitening.columns = dims;
    whitening.components = components;
    whitening.constant = constant;
    Scattering<T> scattering = {};
    scattering.x = static_cast<const T*>(x);
    scattering.total = n;
    scattering.dims = dims;
    scattering.parts = scatter_parts(dims, components);
    scattering.first = first;
    scattering.second = second;
    full_em(static_cast<const T*>(x), n, whitening, scattering, means, factors, weights, fast, workspace, chunk, counts,
            log_likelihood, launch);
  };
  dtype == Real::kFloat ? run(float()) : run(double());
  return error_text(launch.error);
}

}  // namespace pygen
