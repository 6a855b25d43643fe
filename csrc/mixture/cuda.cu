#include "../launch.h"
#include "cuda.h"
#include "sums.cuh"

namespace pygen {
namespace {

Expansion take_expansion(Taker& taker, int64_t components, int64_t dims, float) {
  const int64_t depth = divided(dims, ExpandedTile::kDepth) * ExpandedTile::kDepth;
  return {taker.take<float>(depth),       taker.take<float>(components * depth), taker.take<float>(components * depth),
          taker.take<double>(components), taker.take<float>(components),         depth};
}

Expansion take_expansion(Taker&, int64_t, int64_t, double) { return {}; }

// Segments for which blocks have sums of their own: blocks enough to fill any GPU, where the sums stay small.
int64_t segments_of(int64_t rows, int64_t components, int64_t dims) {
  constexpr int64_t kBlocks = 1024, kSumElements = int64_t{1} << 21;
  const int64_t most = divided(rows, kListed), wanted = divided(kBlocks, components * divided(dims + 1, kSumColumns));
  const int64_t room = kSumElements / (components * (dims + 1));
  int64_t segments = most < wanted ? most : wanted;
  if (room < segments) segments = room;
  return segments < 1 ? 1 : segments;
}

template <class T>
struct EmWorkspace {
  Expansion expansion;
  T *joint, *base;
  int* crowded;
  double *scale, *parts;
  double *counts, *first, *second, *entropies;  // zero at first
  int64_t blocks, finish_blocks, segments;      // posteriors'; finish_kernel's; of the sums
  int64_t zeros;                                // bytes
};

template <class T>
EmWorkspace<T> take_em(Taker& taker, int64_t rows, int64_t components, int64_t dims) {
  EmWorkspace<T> w = {};
  w.expansion = take_expansion(taker, components, dims, T());
  w.joint = taker.take<T>(components * rows);
  w.base = taker.take<T>(rows);
  w.scale = taker.take<double>(rows);
  w.blocks = divided(rows, kPosteriorRows);
  w.crowded = taker.take<int>(w.blocks);
  w.finish_blocks = divided(components * (dims > 0 ? dims : 1), kFinishThreads);
  w.parts = taker.take<double>(w.finish_blocks);
  w.segments = segments_of(rows, components, dims);
  const int64_t start = taker.used;
  w.counts = taker.take<double>(w.segments * components);
  w.first = taker.take<double>(w.segments * components * dims);
  w.second = taker.take<double>(w.segments * components * dims);
  w.entropies = taker.take<double>(w.blocks);
  w.zeros = taker.used - start;
  return w;
}

void prepare(const Joint<float>& a, const Expansion& to, Launcher& launch) {
  launch(centre_kernel, blocks_of(to.depth + 1, kPrepareThreads), kPrepareThreads, 0, a.means, a.precisions,
         a.components, a.dims, to);
  launch(expansion_kernel, blocks_of(a.components * 32, kPrepareThreads), kPrepareThreads, 0, a.means, a.precisions,
         a.constant, a.components, a.dims, to);
}

void prepare(const Joint<double>&, const Expansion&, Launcher&) {}

template <class T>
bool whole_rows(const Joint<T>& a) {
  return a.dims > 0 && a.dims % 4 == 0 && is_aligned(a.x);
}

// Of rows that are crowded, or of all.
void launch_joint(const Joint<float>& a, const Expansion& with, bool fast, const int* crowded, Launcher& launch) {
  const unsigned blocks = blocks_of(a.n, ExpandedTile::kRows) * blocks_of(a.components, ExpandedTile::kComponents);
  const auto kernel = whole_rows(a) ? fast ? expanded_kernel<true, true> : expanded_kernel<true, false>
                      : fast        ? expanded_kernel<false, true>
                                    : expanded_kernel<false, false>;
  launch(kernel, blocks, ExpandedTile::kThreads, ExpandedTile::kStages * sizeof(ExpandedStage), a, with, crowded);
}

void launch_joint(const Joint<double>& a, const Expansion&, bool, const int*, Launcher& launch) {
  const dim3 grid(blocks_of(a.n, DoubleTile::kLines), blocks_of(a.components, DoubleTile::kLines));
  launch(difference_kernel, grid, DoubleTile::kThreads, 0, a);
}

float share_of(const Expansion& with, bool fast) { return fast ? fast_share(with.depth) : kShare; }

// Whether fast densities first save more than they cost. Rows of few features overlap more often than not.
bool screens(const Joint<float>& a) { return a.components >= 16 && a.dims >= 128; }
bool screens(const Joint<double>&) { return false; }

template <class T>
void launch_posterior(const PosteriorOf<T>& a, Launcher& launch) {
  launch(posterior_kernel<T>, blocks_of(a.from.n, kPosteriorRows), kPosteriorThreads, 0, a);
}

template <class T>
const char* run_em(Joint<T> a, const double* weights, int64_t rows, bool fast, void* workspace, Finish finish,
                   Launcher launch) {
  Taker taker = {reinterpret_cast<uintptr_t>(workspace)};
  const EmWorkspace<T> w = take_em<T>(taker, rows, a.components, a.dims);
  launch.clear(w.counts, w.zeros);
  prepare(a, w.expansion, launch);
  const T* x = a.x;
  const int64_t n = a.n;
  const bool screen = !fast && screens(a);
  a.joint = w.joint;
  a.stride = rows;
  for (int64_t begin = 0; begin < n; begin += rows) {
    a.n = n - begin < rows ? n - begin : rows;
    a.x = x + begin * a.dims;
    launch_joint(a, w.expansion, fast || screen, nullptr, launch);
    PosteriorOf<T> posterior = {a,
                                w.expansion.spread,
                                share_of(w.expansion, fast || screen),
                                kOffNats,
                                weights ? weights + begin : nullptr,
                                !fast,
                                screen ? Pass::kScreen : Pass::kOnly,
                                w.crowded,
                                w.base,
                                w.scale,
                                nullptr,
                                w.entropies};
    launch_posterior(posterior, launch);
    if (screen) {
      launch_joint(a, w.expansion, false, w.crowded, launch);
      posterior.share = share_of(w.expansion, false);
      posterior.pass = Pass::kCrowded;
      launch_posterior(posterior, launch);
    }
    const int64_t segment = divided(divided(a.n, w.segments), kListed) * kListed;
    const dim3 grid(static_cast<unsigned>(a.components), blocks_of(a.n, segment),
                    blocks_of(a.dims > 0 ? a.dims : 1, kSumColumns));
    launch(whole_rows(a) ? sums_kernel<T, true> : sums_kernel<T, false>, grid, kSumThreads, 0,
           RowSums<T>{a, w.base, w.scale, segment, w.counts, w.first, w.second});
  }
  finish.counts = w.counts;
  finish.first = w.first;
  finish.second = w.second;
  finish.entropies = w.entropies;
  finish.segments = w.segments;
  finish.posterior_blocks = w.blocks;
  finish.parts = w.parts;
  launch(finish_kernel, static_cast<unsigned>(w.finish_blocks), kFinishThreads, 0, finish);
  launch(likelihood_kernel, 1, kFinishThreads, 0, finish, w.finish_blocks);
  return error_text(launch.error);
}

template <class T>
const char* run_log_joint(const Joint<T>& a, bool settle, bool fast, void* workspace, double* largest,
                          Launcher launch) {
  constexpr int64_t kMostBlocks = 65535;  // of a grid's second dimension
  Taker taker = {reinterpret_cast<uintptr_t>(workspace)};
  const Expansion expansion = take_expansion(taker, a.components, a.dims, T());
  T* base = taker.take<T>(a.n);
  prepare(a, expansion, launch);
  launch_joint(a, expansion, fast, nullptr, launch);
  launch_posterior(PosteriorOf<T>{a, expansion.spread, share_of(expansion, fast), fast ? INFINITY : kOffNats, nullptr,
                                  settle, Pass::kOnly, nullptr, base, nullptr, largest, nullptr},
                   launch);
  const dim3 grid(blocks_of(a.n, kRelativeThreads),
                  static_cast<unsigned>(a.components < kMostBlocks ? a.components : kMostBlocks));
  launch(relative_kernel<T>, grid, kRelativeThreads, 0, a.joint, base, a.n, a.components);
  return error_text(launch.error);
}

}  // namespace

int64_t diagonal_em_rows(int64_t n, int64_t components, bool is_double) {
  // Densities of so much at a time: half of an H200's second-level cache. More rows than kMost win nothing.
  constexpr int64_t kBytes = 24000000, kMost = int64_t{1} << 18, kUnit = ExpandedTile::kRows;
  const int64_t room = kBytes / (components * (is_double ? 8 : 4)) / kUnit * kUnit;
  const int64_t limit = room < kUnit ? kUnit : room < kMost ? room : kMost;
  const int64_t needed = divided(n, kUnit) * kUnit;
  return needed < kUnit ? kUnit : needed < limit ? needed : limit;
}

const char* diagonal_em_bytes(int64_t rows, int64_t components, int64_t dims, bool is_double, int64_t* bytes) {
  Taker taker = {0};
  if (is_double)
    take_em<double>(taker, rows, components, dims);
  else
    take_em<float>(taker, rows, components, dims);
  *bytes = taker.used;
  return nullptr;
}

const char* diagonal_log_joint_bytes(int64_t n, int64_t components, int64_t dims, bool is_double, int64_t* bytes) {
  Taker taker = {0};
  if (is_double) {
    taker.take<double>(n);
  } else {
    take_expansion(taker, components, dims, float());
    taker.take<float>(n);
  }
  *bytes = taker.used;
  return nullptr;
}

const char* launch_diagonal_em(const void* x, const double* means, const double* precisions, const double* constant,
                               const double* weights, int64_t rows, int64_t n, int64_t components, int64_t dims,
                               bool is_double, bool fast, void* workspace, double* counts, double* first,
                               double* second, double* log_likelihood, void* stream) {
  const Launcher launch = {static_cast<cudaStream_t>(stream)};
  Finish finish = {};
  finish.precisions = precisions;
  finish.constant = constant;
  finish.components = components;
  finish.dims = dims;
  finish.counts_out = counts;
  finish.first_out = first;
  finish.second_out = second;
  finish.log_likelihood_out = log_likelihood;
  const auto run = [&](auto type) {
    using T = decltype(type);
    const Joint<T> joint = {static_cast<const T*>(x), means, precisions, constant, n, components, dims, nullptr, 0};
    return run_em<T>(joint, weights, rows, fast, workspace, finish, launch);
  };
  return is_double ? run(double()) : run(float());
}

const char* launch_diagonal_log_joint(const void* x, const double* means, const double* precisions,
                                      const double* constant, int64_t n, int64_t components, int64_t dims,
                                      bool is_double, bool settle, bool fast, void* workspace, void* relative,
                                      double* largest, void* stream) {
  if (n == 0) return nullptr;
  const Launcher launch = {static_cast<cudaStream_t>(stream)};
  const auto run = [&](auto type) {
    using T = decltype(type);
    const Joint<T> joint = {static_cast<const T*>(x),  means, precisions, constant, n, components, dims,
                            static_cast<T*>(relative), n};
    return run_log_joint<T>(joint, settle, fast, workspace, largest, launch);
  };
  return is_double ? run(double()) : run(float());
}

}  // namespace pygen
