#include "launches.h"
#include "product.cuh"

namespace pygen {
namespace {

// Large: 64 accumulators a thread, and of each 16 bytes in shared memory most use. Narrow: as many channels as DCGAN's
// outer layers have. Small: where there are too few tiles for the multiprocessors. float needs twice the registers.
template <class T>
struct Shapes {
  using Large = TileShape<T, 128, 128, 64, 32, 4, 2>;
  using Narrow = TileShape<T, 128, 64, 64, 32, 4, 3>;
  using Small = TileShape<T, 64, 64, 32, 32, 4, 4>;
};
template <>
struct Shapes<float> {
  using Large = TileShape<float, 128, 64, 32, 32, 3, 2>;
  using Narrow = Large;
  using Small = TileShape<float, 64, 64, 32, 32, 3, 3>;
};

struct Size {
  int rows, columns;
};

Size size_of(Product product, Real dtype) {
  if (product == Product::kPlain || product == Product::kSmall) return {64, 64};
  return product == Product::kNarrow || dtype == Real::kFloat ? Size{128, 64} : Size{128, 128};
}

bool on_tensor_cores(const Maps& maps, Real dtype) {
  const int quad = dtype == Real::kFloat ? 4 : 8;
  return dtype != Real::kDouble && maps.small % quad == 0 && maps.large % quad == 0;
}

// Calls run(Shape()).
template <class T, class Run>
void with_shape(Product product, const Run& run) {
  if (product == Product::kLarge)
    run(typename Shapes<T>::Large());
  else if (product == Product::kNarrow)
    run(typename Shapes<T>::Narrow());
  else
    run(typename Shapes<T>::Small());
}

template <class T, bool kUp>
void run_map(const MapOf<T>& a, Product product, int64_t tiles, Launcher& launch) {
  const int channels = kUp ? a.maps.large : a.maps.small;
  constexpr int kParities = Direction<kUp>::kParities;
  if (product == Product::kPlain) {
    const dim3 grid(static_cast<unsigned>(tiles), blocks_of(channels, PlainTile<float>::kLines), kParities);
    launch(plain_map_kernel<T, kUp>, grid, PlainTile<float>::kThreads, 0, a);
    return;
  }
  if constexpr (sizeof(T) < 8)
    with_shape<T>(product, [&](auto shape) {
      using Shape = decltype(shape);
      const unsigned blocks = static_cast<unsigned>(tiles * kParities * divided(channels, Shape::kColumns));
      launch(map_kernel<Shape, kUp>, blocks, Shape::kThreads, sizeof(MapMemory<Shape, kUp>), a);
    });
}

template <class T>
void run_weight(const WeightOf<T>& a, const WeightPlan& plan, Launcher& launch) {
  const unsigned splits = static_cast<unsigned>(plan.splits);
  if (plan.product == Product::kPlain) {
    constexpr int kLines = PlainTile<float>::kLines;
    const dim3 grid(blocks_of(a.maps.small, kLines), blocks_of(int64_t{kTaps} * a.maps.large, kLines), splits);
    launch(plain_weight_kernel<T>, grid, PlainTile<float>::kThreads, 0, a);
    return;
  }
  if constexpr (sizeof(T) < 8) {
    const auto run = [&](auto shape) {
      using Shape = decltype(shape);
      const int64_t tiles =
          divided(a.maps.small, Shape::kRows) * divided(int64_t{kTaps} * a.maps.large, Shape::kColumns);
      launch(weight_kernel<Shape>, dim3(static_cast<unsigned>(tiles), splits), Shape::kThreads,
             Shape::kStages * sizeof(Stage<Shape, false, false>), a);
    };
    plan.product == Product::kLarge ? run(typename Shapes<T>::Large()) : run(typename Shapes<T>::Small());
  }
}

}  // namespace

MapPlan plan_map(const Maps& maps, bool up, int64_t n_parts, Real dtype, int multiprocessors) {
  const int64_t pixels = maps.batch / n_parts * maps.height * maps.width;
  const int channels = up ? maps.large : maps.small;
  const auto in_tiles = [&](Product product) -> MapPlan {
    const int rows = size_of(product, dtype).rows;
    return {product, {pixels, divided(pixels, rows), rows}};
  };
  if (!on_tensor_cores(maps, dtype)) return in_tiles(Product::kPlain);
  for (const Product product : {Product::kLarge, Product::kNarrow}) {
    const MapPlan plan = in_tiles(product);
    const int columns = size_of(product, dtype).columns;
    const int64_t blocks = plan.tiling.tiles * n_parts * (up ? 4 : 1) * divided(channels, columns);
    if (channels > columns / 2 && blocks >= multiprocessors) return plan;
  }
  return in_tiles(Product::kSmall);
}

WeightPlan plan_weight(const Maps& maps, Real dtype, int multiprocessors) {
  constexpr int64_t kLeast = 512, kUnit = 32, kMost = 64;  // pixels of a split, in what multiples, splits
  const int64_t pixels = maps.batch * maps.height * maps.width;
  const bool plain = !on_tensor_cores(maps, dtype);
  const Product product = plain ? Product::kPlain : maps.small > 64 ? Product::kLarge : Product::kSmall;
  const Size size = size_of(product, dtype);
  const int64_t columns = divided(int64_t{kTaps} * maps.large, size.columns);
  const int64_t wanted = divided(2 * multiprocessors, divided(maps.small, size.rows) * columns);
  const int64_t room = divided(pixels, kLeast), most = room < kMost ? room : kMost;
  const int64_t split = divided(divided(pixels, wanted < most ? wanted : most), kUnit) * kUnit;
  return {product, divided(pixels, split), split};
}

void launch_map(const Maps& maps, bool up, Real dtype, const MapPlan& plan, const MapCall& call, Launcher& launch) {
  const int64_t tiles = maps.batch * maps.height * maps.width / plan.tiling.pixels * plan.tiling.tiles;
  with_type(dtype, [&](auto type) {
    using T = decltype(type);
    const MapOf<T> a = {maps,
                        static_cast<const T*>(call.from),
                        static_cast<const T*>(call.weight),
                        static_cast<const T*>(call.bias),
                        static_cast<T*>(call.to),
                        static_cast<Sums<Computed<T>>*>(call.statistics),
                        plan.tiling,
                        computed_in<Computed<T>>(call.activated)};
    up ? run_map<T, true>(a, plan.product, tiles, launch) : run_map<T, false>(a, plan.product, tiles, launch);
  });
}

void launch_weight(const Maps& maps, Real dtype, const WeightPlan& plan, const void* small, const void* large,
                   void* parts, Launcher& launch) {
  with_type(dtype, [&](auto type) {
    using T = decltype(type);
    const WeightOf<T> a = {maps,
                           static_cast<const T*>(small),
                           static_cast<const T*>(large),
                           static_cast<Computed<T>*>(parts),
                           maps.batch * maps.height * maps.width,
                           plan.split};
    run_weight<T>(a, plan, launch);
  });
}

}  // namespace pygen
