#include "../launch.h"
#include "cuda.h"
#include "lloyd.cuh"

namespace pygen {
namespace {

Order take_order(Taker& taker, int64_t entries, int64_t groups) {
  constexpr int64_t kTable = int64_t{1} << 18;  // numbers, which one block adds up
  const int64_t most = kTable / groups, wanted = divided(entries, kRun);
  const int64_t segments = wanted < most ? wanted : most;
  Order order = {};
  order.n = entries;
  order.n_groups = groups;
  order.segments = segments < 1 ? 1 : segments;
  order.segment = divided(divided(entries, order.segments), 32) * 32;
  order.table = taker.take<unsigned long long>(groups * order.segments);
  order.entries = taker.take<int64_t>(entries);
  return order;
}

template <class T>
GroupSums<T> take_group_sums(Taker& taker, int64_t entries, int64_t groups, int64_t dims, bool second) {
  GroupSums<T> sums = {};
  const int64_t places = divided(entries, kPart) + groups;
  sums.order = take_order(taker, entries, groups);
  sums.dims = dims;
  sums.counts = taker.take<double>(places);
  sums.first = taker.take<double>(places * dims);
  sums.second = second ? taker.take<double>(places * dims) : nullptr;
  return sums;
}

template <class T>
bool whole_rows(const T* x, int64_t dims) {
  return dims > 0 && dims % 4 == 0 && is_aligned(x);
}

template <class T>
void launch_group_sums(const GroupSums<T>& a, double* counts, double* first, double* second, Launcher& launch) {
  const Order& order = a.order;
  launch.clear(order.table, order.n_groups * order.segments * static_cast<int64_t>(sizeof *order.table));
  launch(count_kernel, blocks_of(order.n, kOrderThreads), kOrderThreads, 0, order);
  launch(scan_kernel, 1, kScanThreads, 0, order);
  launch(place_kernel, blocks_of(order.segments * 32, kOrderThreads), kOrderThreads, 0, order);
  const int64_t columns = a.dims > 0 ? a.dims : 1;
  launch(whole_rows(a.x, a.dims) ? group_sums_kernel<T, true> : group_sums_kernel<T, false>,
         dim3(blocks_of(order.n, kPart), blocks_of(columns, kMomentColumns)), kMomentThreads, 0, a);
  launch(group_totals_kernel<T>, dim3(static_cast<unsigned>(order.n_groups), blocks_of(columns, kTotalColumns)),
         dim3(kTotalColumns, kTotalTeams), 0, a, counts, first, second);
}

int64_t padded(int64_t dims) { return divided(dims, 16) * 16; }  // kDepth of every shape

template <class T>
T* take_centres(Taker& taker, int64_t n_centres, int64_t dims) {
  return taker.take<T>(n_centres * padded(dims));
}

template <class T>
void round_centres(const double* centres, int64_t n_centres, int64_t dims, T* to, double* copy, Launcher& launch) {
  launch(round_kernel<T>, blocks_of(n_centres * padded(dims), kRoundThreads), kRoundThreads, 0, centres, n_centres,
         dims, padded(dims), to, copy);
}

template <class Shape>
void launch_closer_as(const DistancesOf<typename Shape::T>& a, const double* closest, double* found, Launcher& launch) {
  static_assert(Shape::kDepth == 16, "centres are padded to as much");
  launch(whole_rows(a.x, a.dims) ? closer_kernel<Shape, true> : closer_kernel<Shape, false>,
         dim3(blocks_of(a.n, Shape::kRows), blocks_of(a.n_centres, Shape::kCentres)), Shape::kThreads,
         Shape::kStages * sizeof(DistanceStage<Shape>), a, closest, found);
}

constexpr int64_t kFewCentres = 32;  // four passes over the rows; for more, the sums take longer than one does

template <class T>
struct LloydWorkspace {
  Lloyd<T> step;
  GroupSums<T> sums;
  Far<T>* far;
};

template <class T>
LloydWorkspace<T> take_lloyd(Taker& taker, int64_t n, int64_t dims, int64_t n_centres) {
  LloydWorkspace<T> w = {};
  w.step.rounded = take_centres<T>(taker, n_centres, dims);
  w.step.state = taker.take<LloydState>(1);
  w.step.nearest = taker.take<T>(n);
  w.step.counts = taker.take<double>(n_centres);
  w.step.sums = taker.take<double>(n_centres * dims);
  w.step.moves = taker.take<double>(n_centres);
  w.sums = take_group_sums<T>(taker, n, n_centres, dims, false);
  w.far = taker.take<Far<T>>(divided(n, kFarRows));
  return w;
}

template <class Shape>
void assign(const Lloyd<typename Shape::T>& step, bool first, bool last, Launcher& launch) {
  launch(whole_rows(step.from.x, step.from.dims) ? assign_kernel<Shape, true> : assign_kernel<Shape, false>,
         blocks_of(step.from.n, Shape::kRows), Shape::kThreads, Shape::kStages * sizeof(DistanceStage<Shape>), step,
         first, last);
}

template <class T>
void assign_any(const Lloyd<T>& step, bool first, bool last, Launcher& launch) {
  if (step.from.n_centres <= kFewCentres)
    assign<typename DistanceShapes<T>::Few>(step, first, last, launch);
  else
    assign<typename DistanceShapes<T>::Many>(step, first, last, launch);
}

template <class T>
void run_lloyd(const LloydWorkspace<T>& w, int64_t max_iter, double threshold, Launcher& launch) {
  const Lloyd<T>& step = w.step;
  launch.clear(step.state, sizeof(LloydState));
  for (int64_t i = 0; i < max_iter; ++i) {
    assign_any(step, i == 0, false, launch);
    launch_group_sums(w.sums, step.counts, step.sums, static_cast<double*>(nullptr), launch);
    launch(move_kernel<T>, static_cast<unsigned>(step.from.n_centres), kMoveThreads, 0, step);
    launch(close_kernel<T>, 1, kCloseThreads, 0, step, w.far, threshold);
  }
  assign_any(step, false, true, launch);
}

}  // namespace

const char* moments_bytes(int64_t entries, int64_t groups, int64_t dims, int64_t* bytes) {
  Taker taker = {0};
  if (groups > 0) take_group_sums<float>(taker, entries, groups, dims, true);
  *bytes = taker.used;
  return nullptr;
}

const char* launch_moments(const void* x, const int64_t* groups, const double* means, const double* weights,
                           const int64_t* rows, int64_t n, int64_t entries, int64_t n_groups, int64_t dims,
                           bool is_double, void* workspace, double* counts, double* first, double* second,
                           void* stream) {
  if (n_groups == 0) return nullptr;
  Launcher launch = {static_cast<cudaStream_t>(stream)};
  const auto run = [&](auto type) {
    using T = decltype(type);
    Taker taker = {reinterpret_cast<uintptr_t>(workspace)};
    GroupSums<T> sums = take_group_sums<T>(taker, entries, n_groups, dims, true);
    sums.order.groups = groups;
    sums.x = static_cast<const T*>(x);
    sums.means = means;
    sums.weights = weights;
    sums.rows = rows;
    sums.n = n;
    launch_group_sums(sums, counts, first, second, launch);
  };
  is_double ? run(double()) : run(float());
  return error_text(launch.error);
}

const char* closer_bytes(int64_t n_centres, int64_t dims, bool is_double, int64_t* bytes) {
  Taker taker = {0};
  is_double ? static_cast<void>(take_centres<double>(taker, n_centres, dims))
            : static_cast<void>(take_centres<float>(taker, n_centres, dims));
  *bytes = taker.used;
  return nullptr;
}

const char* launch_closer(const void* x, const double* centres, const double* closest, int64_t n, int64_t dims,
                          int64_t n_centres, bool is_double, void* workspace, double* found, void* stream) {
  Launcher launch = {static_cast<cudaStream_t>(stream)};
  const auto run = [&](auto type) {
    using T = decltype(type);
    Taker taker = {reinterpret_cast<uintptr_t>(workspace)};
    T* rounded = take_centres<T>(taker, n_centres, dims);
    round_centres(centres, n_centres, dims, rounded, nullptr, launch);
    const DistancesOf<T> a = {static_cast<const T*>(x), rounded, n, dims, n_centres, padded(dims)};
    if (n_centres <= kFewCentres)
      launch_closer_as<typename DistanceShapes<T>::Few>(a, closest, found, launch);
    else
      launch_closer_as<typename DistanceShapes<T>::Many>(a, closest, found, launch);
  };
  is_double ? run(double()) : run(float());
  return error_text(launch.error);
}

const char* lloyd_bytes(int64_t n, int64_t dims, int64_t n_centres, bool is_double, int64_t* bytes) {
  Taker taker = {0};
  is_double ? static_cast<void>(take_lloyd<double>(taker, n, dims, n_centres))
            : static_cast<void>(take_lloyd<float>(taker, n, dims, n_centres));
  *bytes = taker.used;
  return nullptr;
}

const char* launch_lloyd(const void* x, const double* centres, const double* weights, int64_t n, int64_t dims,
                         int64_t n_centres, int64_t max_iter, double threshold, bool is_double, void* workspace,
                         int64_t* labels, double* moved, void* stream) {
  Launcher launch = {static_cast<cudaStream_t>(stream)};
  const auto run = [&](auto type) {
    using T = decltype(type);
    Taker taker = {reinterpret_cast<uintptr_t>(workspace)};
    LloydWorkspace<T> w = take_lloyd<T>(taker, n, dims, n_centres);
    const T* rows = static_cast<const T*>(x);
    w.step.from = {rows, w.step.rounded, n, dims, n_centres, padded(dims)};
    w.step.weights = w.sums.weights = weights;
    w.step.labels = labels;
    w.step.centres = moved;
    w.sums.order.groups = labels;
    w.sums.order.active = &w.step.state->active;
    w.sums.x = rows;
    w.sums.means = moved;
    w.sums.n = n;
    round_centres(centres, n_centres, dims, w.step.rounded, moved, launch);
    run_lloyd(w, max_iter, threshold, launch);
  };
  is_double ? run(double()) : run(float());
  return error_text(launch.error);
}

}  // namespace pygen
