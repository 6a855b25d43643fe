#include "few.cuh"
#include "launches.h"

namespace pygen {
namespace {

// Two blocks fit a multiprocessor of 164 KiB. Blocks go on from tile to tile: as many as are resident.
constexpr int64_t kMostShared = 82 << 10, kBlocksEach = 3;

template <class T>
int64_t shared_of(const Maps& maps) {
  return sizeof(FewMemory<T>) + FewShape<T>::kLines * few_weight_pitch<T>(maps.small) * sizeof(T);
}

}  // namespace

bool takes_few(const Maps& maps, Real dtype) {
  const int quad = dtype == Real::kFloat ? 4 : 8;
  if (dtype == Real::kDouble || maps.large > kFewChannels || maps.small % quad != 0) return false;
  return (dtype == Real::kFloat ? shared_of<float>(maps) : shared_of<__half>(maps)) <= kMostShared;
}

void launch_few(const Maps& maps, Real dtype, const MapCall& call, int multiprocessors, Launcher& launch) {
  with_type(dtype, [&](auto type) {
    using T = decltype(type);
    if constexpr (sizeof(T) < 8) {
      constexpr int kSide = FewShape<T>::kSide;
      const int64_t across = divided(maps.width, kSide), down = divided(maps.height, kSide);
      const FewOf<T> a = {maps,
                          static_cast<const T*>(call.from),
                          static_cast<const T*>(call.weight),
                          static_cast<const T*>(call.bias),
                          static_cast<T*>(call.to),
                          computed_in<float>(call.activated),
                          static_cast<int>(across),
                          static_cast<int>(down),
                          maps.batch * across * down};
      const int64_t most = kBlocksEach * multiprocessors;
      launch(few_kernel<T>, static_cast<unsigned>(a.tiles < most ? a.tiles : most), FewShape<T>::kThreads,
             shared_of<T>(maps), a);
    }
  });
}

}  // namespace pygen
