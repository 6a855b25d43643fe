// Lloyd's algorithm on the GPU. The host launches all steps that there may be and waits for none: whether one is to be
// taken is known on the device, and the kernels of others return at once. To read that on the host would stall the
// device at every step and could not be captured in a graph; the launches for nothing take some 20 us a step.
//
// A row's centre is that of the least distance as rounded in the rows' precision, from centres rounded to it: in float
// one that is farther by 1e-6 of the squared distance may be taken for the nearest.
#pragma once
#include "distances.cuh"
#include "moments.cuh"

namespace pygen {

// kLast: the centres have moved by so little that rows find their nearest once more.
enum LloydPhase { kRunning, kLast, kDone };

// All zero at first. active: a row has changed its centre in this step. empty: centres without rows.
struct LloydState {
  int phase, active, empty;
};

// nearest [n]: squared distances. centres and sums [n_centres, dims] in float64, counts and moves [n_centres], the
// latter squares of how far.
template <class T>
struct Lloyd {
  DistancesOf<T> from;
  T* rounded;             // the centres of `from`
  const double* weights;  // [n]; null: 1
  LloydState* state;
  int64_t* labels;
  T* nearest;
  double *centres, *counts, *sums, *moves;
};

// Labels and distances of all rows. `first`: they have none so far. `last`: no step follows. Of centres at the same
// distance the first is a row's.
template <class Shape, bool kWhole>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    assign_kernel(Lloyd<typename Shape::T> a, bool first, bool last) {
  using T = typename Shape::T;
  constexpr int kTeams = Shape::kThreads / Shape::kSide;
  struct Found {
    T distances[kTeams][Shape::kRows];
    int centres[kTeams][Shape::kRows];
  };
  static_assert(sizeof(Found) <= Shape::kStages * sizeof(DistanceStage<Shape>), "in place of what is measured");
  const int phase = a.state->phase;
  if (last ? phase != kLast : phase == kDone) return;
  const int64_t first_row = int64_t{blockIdx.x} * Shape::kRows;
  T least[Shape::kRowsPer];
  int own[Shape::kRowsPer] = {};
  for (T& distance : least) distance = INFINITY;
  for (int64_t chunk = 0; chunk < a.from.n_centres; chunk += Shape::kCentres) {
    T sums[Shape::kRowsPer][Shape::kCentresPer];
    measure<Shape, kWhole>(a.from, first_row, chunk, shared_memory<DistanceStage<Shape>>(), sums);
    const int64_t begin = chunk + centre_of_thread<Shape>();
#pragma unroll
    for (int j = 0; j < Shape::kCentresPer; ++j) {
#pragma unroll
      for (int i = 0; i < Shape::kRowsPer; ++i) {
        if (begin + j < a.from.n_centres && sums[i][j] < least[i]) {
          least[i] = sums[i][j];
          own[i] = static_cast<int>(begin + j);
        }
      }
    }
    __syncthreads();
  }
  Found& found = *shared_memory<Found>();
#pragma unroll
  for (int i = 0; i < Shape::kRowsPer; ++i) {
    const int line = row_of_thread<Shape>() + i * Shape::kSide;
    found.distances[threadIdx.x / Shape::kSide][line] = least[i];
    found.centres[threadIdx.x / Shape::kSide][line] = own[i];
  }
  __syncthreads();
  bool changed = false;
  for (int line = threadIdx.x; line < Shape::kRows; line += Shape::kThreads) {
    const int64_t row = first_row + line;
    if (row >= a.from.n) continue;
    T distance = found.distances[0][line];
    int centre = found.centres[0][line];
    for (int team = 1; team < kTeams; ++team) {
      const T other = found.distances[team][line];
      const int its = found.centres[team][line];
      if (other < distance || (other == distance && its < centre)) distance = other, centre = its;
    }
    changed |= first || a.labels[row] != centre;
    a.labels[row] = centre;
    a.nearest[row] = distance;
  }
  if (__any_sync(~0u, changed) && threadIdx.x % 32 == 0 && phase == kRunning) atomicExch(&a.state->active, 1);
}

// The sum over a block's threads, in an order that depends on nothing but their number, for its first.
template <int kThreads>
__device__ __forceinline__ double block_total(double value) {
  auto& sums = static_shared<double[kThreads / 32]>();
  for (int bits = 16; bits > 0; bits /= 2) value += __shfl_xor_sync(~0u, value, bits);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
  __syncthreads();
  double total = 0;
  for (int warp = 0; threadIdx.x == 0 && warp < kThreads / 32; ++warp) total += sums[warp];
  return total;
}

// The square of how far this thread's columns of a centre have moved.
template <int kThreads, class T, class Place>
__device__ __forceinline__ double move_centre(const Lloyd<T>& a, int64_t k, const Place& place) {
  double squares = 0;
  for (int64_t column = threadIdx.x; column < a.from.dims; column += kThreads) {
    double& centre = a.centres[k * a.from.dims + column];
    const double to = place(column, centre), step = to - centre;
    squares = fma(step, step, squares);
    centre = to;
    a.rounded[k * a.from.depth + column] = static_cast<T>(to);
  }
  return squares;
}

constexpr int kMoveThreads = 256;

// A block moves a centre to the mean of its rows.
template <class T>
__global__ void __launch_bounds__(kMoveThreads) move_kernel(Lloyd<T> a) {
  if (a.state->active == 0) return;
  const int64_t k = blockIdx.x;
  const double count = a.counts[k], *sums = a.sums + k * a.from.dims;
  if (count == 0 && threadIdx.x == 0) atomicAdd(&a.state->empty, 1);
  double squares = 0;
  if (count != 0)
    squares = move_centre<kMoveThreads>(a, k, [&](int64_t column, double from) { return from + sums[column] / count; });
  squares = block_total<kMoveThreads>(squares);
  if (threadIdx.x == 0) a.moves[k] = squares;
}

// How far a row is from its centre; row -1 and less than any for none.
template <class T>
struct Far {
  T distance;
  int64_t row;

  __device__ __forceinline__ bool before(const Far& other) const {
    return distance > other.distance || (distance == other.distance && row < other.row);
  }
};

// All lanes get the warp's farthest.
template <class T>
__device__ __forceinline__ Far<T> farthest_of_warp(Far<T> far) {
  for (int bits = 16; bits > 0; bits /= 2) {
    const Far<T> other = {__shfl_xor_sync(~0u, far.distance, bits), __shfl_xor_sync(~0u, far.row, bits)};
    if (other.before(far)) far = other;
  }
  return far;
}

constexpr int kCloseThreads = 1024, kFarRows = 256;

// By a warp: the farthest row of a stretch of kFarRows, among those that `taken` is before unless that is none.
template <class T>
__device__ __forceinline__ Far<T> farthest(const Lloyd<T>& a, int64_t stretch, const Far<T>& taken) {
  const int64_t begin = stretch * kFarRows, end = begin + kFarRows < a.from.n ? begin + kFarRows : a.from.n;
  Far<T> best = {-1, -1};
  for (int64_t row = begin + threadIdx.x % 32; row < end; row += 32) {
    const Far<T> far = {a.nearest[row], row};
    if (a.weights && !(a.weights[row] > 0)) continue;
    if ((taken.row < 0 || taken.before(far)) && far.before(best)) best = far;
  }
  return farthest_of_warp(best);
}

// By one block: centres without rows move, in turn, to the rows farthest from theirs, of which the first comes first.
// far [stretches] is scratch.
template <class T>
__device__ __forceinline__ void place_empty(const Lloyd<T>& a, Far<T>* far) {
  constexpr int kWarps = kCloseThreads / 32;
  auto& of_warps = static_shared<Far<T>[kWarps]>();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t stretches = (a.from.n + kFarRows - 1) / kFarRows;
  const Far<T> none = {-1, -1};
  for (int64_t stretch = warp; stretch < stretches; stretch += kWarps) {
    const Far<T> best = farthest(a, stretch, none);
    if (lane == 0) far[stretch] = best;
  }
  __syncthreads();
  for (int64_t k = 0; k < a.from.n_centres; ++k) {
    if (a.counts[k] != 0) continue;
    Far<T> best = none;
    for (int64_t stretch = threadIdx.x; stretch < stretches; stretch += kCloseThreads)
      if (far[stretch].before(best)) best = far[stretch];
    best = farthest_of_warp(best);
    if (lane == 0) of_warps[warp] = best;
    __syncthreads();
    for (int other = 0; other < kWarps; ++other)
      if (of_warps[other].before(best)) best = of_warps[other];
    if (best.row < 0) return;
    const T* x = a.from.x + best.row * a.from.dims;
    double squares =
        move_centre<kCloseThreads>(a, k, [&](int64_t column, double) { return static_cast<double>(x[column]); });
    squares = block_total<kCloseThreads>(squares);
    if (threadIdx.x == 0) a.moves[k] = squares;
    if (warp == 0) {
      const Far<T> next = farthest(a, best.row / kFarRows, best);
      if (lane == 0) far[best.row / kFarRows] = next;
    }
    __syncthreads();
  }
}

// One block ends a step: the empty centres, and whether there is another step.
template <class T>
__global__ void __launch_bounds__(kCloseThreads) close_kernel(Lloyd<T> a, Far<T>* far, double threshold) {
  LloydState& state = *a.state;
  if (state.active == 0) {
    if (threadIdx.x == 0) state.phase = kDone;
    return;
  }
  if (state.empty != 0) place_empty(a, far);
  double moved = 0;
  for (int64_t k = threadIdx.x; k < a.from.n_centres; k += kCloseThreads) moved += a.moves[k];
  moved = block_total<kCloseThreads>(moved);
  if (threadIdx.x != 0) return;
  if (moved <= threshold) state.phase = kLast;
  state.active = state.empty = 0;
}

}  // namespace pygen
