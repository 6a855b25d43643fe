#include "cuda.h"
#include "launches.h"
#include "plain.cuh"

namespace pygen {
namespace {

const char* count_multiprocessors(int* number) {
  int device = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(number, cudaDevAttrMultiProcessorCount, device);
  return error_text(error);
}

Maps maps_of(int64_t batch, int64_t height, int64_t width, int64_t small, int64_t large) {
  return {batch, static_cast<int>(height), static_cast<int>(width), static_cast<int>(small), static_cast<int>(large)};
}

Activated<double> activated_by(int activation, double slope) { return {static_cast<Nonlinear>(activation), slope}; }

int64_t size_of_real(Real dtype) { return dtype == Real::kDouble ? 8 : 4; }
int64_t size_of_element(Real dtype) { return dtype == Real::kDouble ? 8 : dtype == Real::kFloat ? 4 : 2; }

// Of a convolution's result: pixels of a part, and channels.
int64_t pixels_of_part(const Maps& maps, bool transposed, int64_t n_batches) {
  return maps.batch / n_batches * maps.height * maps.width * (transposed ? 4 : 1);
}
int64_t channels_of(const Maps& maps, bool transposed) { return transposed ? maps.large : maps.small; }

struct BackwardWorkspace {
  char *slots, *sums, *before, *parts;
  WeightPlan plan;
};

BackwardWorkspace take_backward(Taker& taker, const Maps& maps, bool transposed, int64_t n_batches, Real dtype,
                                bool weight, int multiprocessors) {
  const int64_t pixels = pixels_of_part(maps, transposed, n_batches), channels = channels_of(maps, transposed);
  const int64_t pair = 2 * size_of_real(dtype);
  BackwardWorkspace w = {};
  w.slots = taker.take<char>(n_batches * norm_chunks(pixels, n_batches) * channels * pair);
  w.sums = taker.take<char>(n_batches * channels * pair);
  w.before = taker.take<char>(n_batches * pixels * channels * size_of_element(dtype));
  w.plan = plan_weight(maps, dtype, multiprocessors);
  if (weight) w.parts = taker.take<char>(w.plan.splits * maps.small * kTaps * maps.large * size_of_real(dtype));
  return w;
}

// A map without statistics.
void launch_alone(const Maps& maps, bool up, Real dtype, const MapCall& call, int multiprocessors, Launcher& launch) {
  if (up && takes_few(maps, dtype))
    launch_few(maps, dtype, call, multiprocessors, launch);
  else
    launch_map(maps, up, dtype, plan_map(maps, up, 1, dtype, multiprocessors), call, launch);
}

void launch_weight_gradient(const Maps& maps, Real dtype, const BackwardWorkspace& w, const void* small,
                            const void* large, bool taps_last, void* gradient, Launcher& launch) {
  launch_weight(maps, dtype, w.plan, small, large, w.parts, launch);
  const unsigned blocks = blocks_of(int64_t{maps.small} * maps.large, kAddThreads);
  with_type(dtype, [&](auto type) {
    using T = decltype(type);
    launch(add_parts_kernel<T>, blocks, kAddThreads, 0, reinterpret_cast<const Computed<T>*>(w.parts), w.plan.splits,
           maps.small, maps.large, taps_last, static_cast<T*>(gradient));
  });
}

}  // namespace

bool conv_takes_few(int64_t small, int64_t large, Real dtype) {
  return takes_few(maps_of(0, 0, 0, small, large), dtype);
}

const char* conv_bytes(int64_t batch, int64_t height, int64_t width, int64_t small, int64_t large, bool transposed,
                       int64_t n_batches, Real dtype, int64_t* bytes) {
  const Maps maps = maps_of(batch, height, width, small, large);
  int multiprocessors = 0;
  if (const char* error = count_multiprocessors(&multiprocessors)) return error;
  const MapPlan plan = plan_map(maps, transposed, n_batches, dtype, multiprocessors);
  *bytes =
      n_batches * plan.tiling.tiles * (transposed ? 4 : 1) * channels_of(maps, transposed) * 2 * size_of_real(dtype);
  return nullptr;
}

const char* conv_backward_bytes(int64_t batch, int64_t height, int64_t width, int64_t small, int64_t large,
                                bool transposed, int64_t n_batches, Real dtype, bool weight, int64_t* bytes) {
  int multiprocessors = 0;
  if (const char* error = count_multiprocessors(&multiprocessors)) return error;
  Taker taker = {0};
  take_backward(taker, maps_of(batch, height, width, small, large), transposed, n_batches, dtype, weight,
                multiprocessors);
  *bytes = taker.used;
  return nullptr;
}

const char* launch_conv_act(const void* x, const void* weight, const void* bias, int64_t batch, int64_t height,
                            int64_t width, int64_t small, int64_t large, bool transposed, int activation, double slope,
                            Real dtype, void* y, void* stream) {
  const Maps maps = maps_of(batch, height, width, small, large);
  int multiprocessors = 0;
  if (const char* error = count_multiprocessors(&multiprocessors)) return error;
  Launcher launch = {static_cast<cudaStream_t>(stream)};
  launch_alone(maps, transposed, dtype, {x, weight, bias, y, nullptr, activated_by(activation, slope)}, multiprocessors,
               launch);
  return error_text(launch.error);
}

const char* launch_conv_bn_act(const void* x, const void* weight, const void* norm_weight, const void* norm_bias,
                               int64_t batch, int64_t height, int64_t width, int64_t small, int64_t large,
                               bool transposed, int64_t n_batches, double eps, int activation, double slope, Real dtype,
                               void* workspace, void* y, void* z, void* mean, void* variance, void* stream) {
  const Maps maps = maps_of(batch, height, width, small, large);
  int multiprocessors = 0;
  if (const char* error = count_multiprocessors(&multiprocessors)) return error;
  Launcher launch = {static_cast<cudaStream_t>(stream)};
  const MapPlan plan = plan_map(maps, transposed, n_batches, dtype, multiprocessors);
  launch_map(maps, transposed, dtype, plan, {x, weight, nullptr, z, workspace, {}}, launch);
  const int64_t channels = channels_of(maps, transposed);
  launch_merge_statistics(workspace, plan.tiling, transposed ? 4 : 1, n_batches, channels, dtype, mean, variance,
                          launch);
  const NormCall norm = {pixels_of_part(maps, transposed, n_batches),
                         n_batches,
                         channels,
                         mean,
                         variance,
                         norm_weight,
                         norm_bias,
                         eps,
                         activated_by(activation, slope)};
  launch_normalise(norm, dtype, z, y, launch);
  return error_text(launch.error);
}

const char* launch_conv_backward(const void* grad, const void* x, const void* weight, const void* from,
                                 const void* mean, const void* variance, const void* norm_weight, const void* norm_bias,
                                 int64_t batch, int64_t height, int64_t width, int64_t small, int64_t large,
                                 bool transposed, int64_t n_batches, double eps, int activation, double slope,
                                 Real dtype, bool taps_last, void* workspace, void* grad_x, void* grad_weight,
                                 void* grad_norm_weight, void* grad_bias, void* stream) {
  const Maps maps = maps_of(batch, height, width, small, large);
  int multiprocessors = 0;
  if (const char* error = count_multiprocessors(&multiprocessors)) return error;
  Launcher launch = {static_cast<cudaStream_t>(stream)};
  Taker taker = {reinterpret_cast<uintptr_t>(workspace)};
  const BackwardWorkspace w =
      take_backward(taker, maps, transposed, n_batches, dtype, grad_weight != nullptr, multiprocessors);
  const Activated<double> activated = activated_by(activation, slope);
  const NormCall norm = {pixels_of_part(maps, transposed, n_batches),
                         n_batches,
                         channels_of(maps, transposed),
                         mean,
                         variance,
                         norm_weight,
                         norm_bias,
                         eps,
                         activated};
  // Without norm and activation the gradient is what it was.
  const bool changes = mean != nullptr || activated.function != Nonlinear::kNone;
  const void* before = changes ? w.before : grad;
  launch_norm_backward(norm, dtype, grad, from, w.slots, w.sums, changes ? w.before : nullptr, grad_norm_weight,
                       grad_bias, launch);
  if (grad_x)
    launch_alone(maps, !transposed, dtype, {before, weight, nullptr, grad_x, nullptr, {}}, multiprocessors, launch);
  if (grad_weight)
    launch_weight_gradient(maps, dtype, w, transposed ? x : before, transposed ? before : x, taps_last, grad_weight,
                           launch);
  return error_text(launch.error);
}

}  // namespace pygen
