// What the sources of the conv family launch for one another.
#pragma once
#include "../launch.h"
#include "maps.cuh"

namespace pygen {

// The products of one convolution: which kernels compute them, and in what tiles.
enum class Product { kPlain, kSmall, kNarrow, kLarge };

struct MapPlan {
  Product product;
  Tiling tiling;
};

struct WeightPlan {
  Product product;
  int64_t splits, split;  // parts of the pixels, and pixels of each
};

// product.cu. With n parts of the batch, on so many multiprocessors.
MapPlan plan_map(const Maps& maps, bool up, int64_t n_parts, Real dtype, int multiprocessors);
WeightPlan plan_weight(const Maps& maps, Real dtype, int multiprocessors);

template <class Real>
Activated<Real> computed_in(const Activated<double>& a) {
  return {a.function, static_cast<Real>(a.slope)};
}

struct MapCall {
  const void *from, *weight, *bias;
  void *to, *statistics;
  Activated<double> activated;
};

// The map of that direction; statistics of its parts unless that is null.
void launch_map(const Maps& maps, bool up, Real dtype, const MapPlan& plan, const MapCall& call, Launcher& launch);
// parts [splits, small channels, 16, large channels].
void launch_weight(const Maps& maps, Real dtype, const WeightPlan& plan, const void* small, const void* large,
                   void* parts, Launcher& launch);

// few.cu. Up to a map of few channels; whether it takes these.
bool takes_few(const Maps& maps, Real dtype);
void launch_few(const Maps& maps, Real dtype, const MapCall& call, int multiprocessors, Launcher& launch);

// norm.cu. A map of n_parts * pixels.
struct NormCall {
  int64_t pixels, n_parts, channels;
  const void *mean, *variance, *weight, *bias;
  double eps;
  Activated<double> activated;
};

int64_t norm_chunks(int64_t pixels, int64_t n_parts);
void launch_merge_statistics(const void* slots, const Tiling& tiling, int parities, int64_t n_parts, int64_t channels,
                             Real dtype, void* mean, void* variance, Launcher& launch);
void launch_normalise(const NormCall& call, Real dtype, const void* z, void* y, Launcher& launch);
// slots [n_parts, norm_chunks, channels], sums [n_parts, channels], of two numbers each. before: the gradient before
// activation and batch norm.
void launch_norm_backward(const NormCall& call, Real dtype, const void* grad, const void* from, void* slots, void* sums,
                          void* before, void* grad_weight, void* grad_bias, Launcher& launch);

}  // namespace pygen
