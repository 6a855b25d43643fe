#include "../launch.h"
#include "cuda.h"
#include "kernel.cuh"
#include "posterior.cuh"
#include "scatter.cuh"

namespace pygen {
namespace {

template <class Out>
void whiten(Whitening<float, Out> a, int64_t components, Launcher& launch) {
  a.tiles = divided(a.n, WhitenTraits::kRows);
  const bool whole = a.size % 4 == 0 && a.columns % 4 == 0 && is_aligned(a.x) && is_aligned(a.factor);
  launch(whole ? whiten_kernel<Out, true> : whiten_kernel<Out, false>, a.tiles * components, WhitenTraits::kThreads,
         sizeof(WhitenShared), a);
}

void whiten(Whitening<double, double> a, int64_t components, Launcher& launch) {
  a.tiles = divided(a.n, DoubleTraits::kSide);
  launch(whiten_double_kernel, a.tiles * components, DoubleTraits::kThreads, 0, a);
}

template <class T>
void scatter(Scattering<T> a, int64_t components, Launcher& launch) {
  a.tiles = double_tiles(a.dims);
  launch(scatter_kernel<T>, a.tiles * components * a.parts, DoubleTraits::kThreads, 0, a, components);
}

// Where the parts of a workspace begin, in bytes.
struct Layout {
  int64_t factors, centre, rest, heights, joint, rows, sizes, totals, first, second, bytes;
};

template <class T>
Layout layout(int64_t chunk, int64_t dims, int64_t components) {
  constexpr bool kSplit = sizeof(T) == sizeof(float);
  const int64_t parts = scatter_parts(dims, components), vector = components * dims;
  Layout l = {};
  int64_t end = 0;
  const auto place = [&](int64_t& begin, int64_t numbers, int64_t size) {
    begin = end;
    end += divided(numbers * size, 16) * 16;
  };
  place(l.factors, kSplit ? vector * dims : 0, sizeof(T));
  place(l.centre, kSplit ? vector : 0, sizeof(T));
  place(l.rest, kSplit ? vector : 0, sizeof(T));
  place(l.heights, components * strips(dims), sizeof(int64_t));
  place(l.joint, components * chunk, sizeof(double));
  place(l.rows, components * chunk, sizeof(int64_t));
  place(l.sizes, components, sizeof(int64_t));
  place(l.totals, divided(chunk, kRowThreads), sizeof(double));
  place(l.first, parts == 1 ? 0 : parts * vector, sizeof(double));
  place(l.second, parts == 1 ? 0 : parts * vector * dims, sizeof(double));
  l.bytes = end;
  return l;
}

template <class T>
T* at(void* workspace, int64_t byte) {
  return reinterpret_cast<T*>(static_cast<unsigned char*>(workspace) + byte);
}

// Centres and factors in T.
void prepare(Whitening<float, double>& a, const double* means, const double* factors, int64_t components,
             const Layout& l, void* workspace, Launcher& launch) {
  auto *factor = at<float>(workspace, l.factors), *centre = at<float>(workspace, l.centre),
       *rest = at<float>(workspace, l.rest);
  launch(prepare_factor_kernel<double, float>, components * strips(a.columns), kPrepareThreads, 0, factors, a.size,
         a.columns, at<int64_t>(workspace, l.heights), factor);
  launch(split_means_kernel<float>, divided(components * a.size, kRowThreads), kRowThreads, 0, means,
         components * a.size, centre, rest);
  a.factor = factor;
  a.centre = centre;
  a.rest = rest;
}
void prepare(Whitening<double, double>& a, const double* means, const double* factors, int64_t components,
             const Layout& l, void* workspace, Launcher& launch) {
  launch(prepare_factor_kernel<double, double>, components * strips(a.columns), kPrepareThreads, 0, factors, a.size,
         a.columns, at<int64_t>(workspace, l.heights), static_cast<double*>(nullptr));
  a.factor = factors;
  a.centre = means;
}

template <class T>
void full_em(const T* x, int64_t n, Whitening<T, double> whitening, Scattering<T> scattering, const double* means,
             const double* factors, const double* weights, int64_t components, void* workspace, int64_t chunk,
             double* counts, double* log_likelihood, Launcher& launch) {
  const int64_t dims = scattering.dims;
  const Layout l = layout<T>(chunk, dims, components);
  auto *joint = at<double>(workspace, l.joint), *totals = at<double>(workspace, l.totals);
  auto *rows = at<int64_t>(workspace, l.rows), *sizes = at<int64_t>(workspace, l.sizes);
  double *first = scattering.first, *second = scattering.second;
  if (scattering.parts > 1) {
    scattering.first = at<double>(workspace, l.first);
    scattering.second = at<double>(workspace, l.second);
  }
  constexpr auto kSize = static_cast<int64_t>(sizeof(double));
  const int64_t vectors = scattering.parts * components * dims * kSize, total_blocks = divided(chunk, kRowThreads);
  launch.clear(counts, components * kSize);
  launch.clear(totals, total_blocks * kSize);
  launch.clear(scattering.first, vectors);
  launch.clear(scattering.second, vectors * dims);
  prepare(whitening, means, factors, components, l, workspace, launch);
  whitening.heights = at<int64_t>(workspace, l.heights);
  whitening.out = joint;
  scattering.mean = means;
  scattering.rows = rows;
  scattering.weights = joint;
  scattering.counts = sizes;
  for (int64_t start = 0; start < n; start += chunk) {
    const int64_t number = n - start < chunk ? n - start : chunk;
    whitening.x = x + start * dims;
    whitening.n = scattering.stride = number;
    whiten(whitening, components, launch);
    launch(posterior_kernel, divided(number, kRowThreads), kRowThreads, 0, joint, components, number,
           weights == nullptr ? nullptr : weights + start, totals);
    launch(compact_kernel, components, kCompactThreads, 0, joint, number, start, rows, sizes, counts);
    scatter(scattering, components, launch);
  }
  launch(total_kernel, 1, kRowThreads, 0, totals, total_blocks, log_likelihood);
  launch(sum_parts_kernel, divided(components * dims * dims, kSumThreads), kSumThreads, 0, scattering.first,
         scattering.second, scattering.parts, components, dims, false, first, second);
}

}  // namespace

const char* launch_whitened_norms(const void* x, int64_t n, int64_t size, const void* centre, const void* factor,
                                  int64_t columns, int64_t* heights, Real dtype, void* norms, void* stream) {
  Launcher launch = {static_cast<cudaStream_t>(stream)};
  const auto run = [&](auto type) {
    using T = decltype(type);
    const auto* factors = static_cast<const T*>(factor);
    launch(prepare_factor_kernel<T, T>, strips(columns), kPrepareThreads, 0, factors, size, columns, heights,
           static_cast<T*>(nullptr));
    Whitening<T, T> a = {};
    a.x = static_cast<const T*>(x);
    a.n = n;
    a.size = size;
    a.centre = static_cast<const T*>(centre);
    a.factor = factors;
    a.heights = heights;
    a.columns = columns;
    a.out = static_cast<T*>(norms);
    whiten(a, 1, launch);
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

FullWorkspace full_em_workspace(int64_t n, int64_t dims, int64_t components, Real dtype) {
  // A chunk's responsibilities and their rows, which four kernels pass on, stay in the second-level cache (50 MB), and
  // so do its rows, which each component reads.
  constexpr int64_t kPairBytes = int64_t{24} << 20, kRowBytes = int64_t{32} << 20, kLeast = 128;
  const int64_t by_pairs = kPairBytes / (16 * components),
                by_rows = kRowBytes / ((dims < 1 ? 1 : dims) * (dtype == Real::kFloat ? 4 : 8));
  int64_t chunk = by_pairs < by_rows ? by_pairs : by_rows;
  chunk = chunk < kLeast ? kLeast : chunk / kLeast * kLeast;
  if (n < chunk) chunk = n;
  return {(dtype == Real::kFloat ? layout<float> : layout<double>)(chunk, dims, components).bytes, chunk};
}

const char* launch_full_em(const void* x, int64_t n, int64_t dims, const double* means, const double* factors,
                           const double* constant, const double* weights, int64_t components, Real dtype,
                           void* workspace, int64_t chunk, double* counts, double* first, double* second,
                           double* log_likelihood, void* stream) {
  Launcher launch = {static_cast<cudaStream_t>(stream)};
  const auto run = [&](auto type) {
    using T = decltype(type);
    Whitening<T, double> whitening = {};
    whitening.size = whitening.columns = dims;
    whitening.constant = constant;
    Scattering<T> scattering = {};
    scattering.x = static_cast<const T*>(x);
    scattering.total = n;
    scattering.dims = dims;
    scattering.parts = scatter_parts(dims, components);
    scattering.first = first;
    scattering.second = second;
    full_em(static_cast<const T*>(x), n, whitening, scattering, means, factors, weights, components, workspace, chunk,
            counts, log_likelihood, launch);
  };
  dtype == Real::kFloat ? run(float()) : run(double());
  return error_text(launch.error);
}

}  // namespace pygen
