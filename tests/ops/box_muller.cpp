// Counts the words for which the fused arithmetic in hardware and its emulation in double differ: all 2^32 words of the
// radius, and all 2^30 angles of a quadrant.
#include "csrc/gaussian/box_muller.h"

#include <cstdio>
#include <thread>
#include <vector>

namespace {

template <class T>
bool differ(T a, T b) {
  return pygen::bit_cast<uint32_t>(a) != pygen::bit_cast<uint32_t>(b);
}

int64_t count(uint32_t top) {
  using pygen::FusedInDouble;
  using pygen::FusedInHardware;
  int32_t different = 0;
  for (uint32_t low = 0; low < 1 << 24; ++low) {
    const uint32_t word = top << 24 | low;
    different += differ(pygen::radius<FusedInHardware>(word), pygen::radius<FusedInDouble>(word));
  }
  if (top < 64) {
    for (uint32_t low = 0; low < 1 << 24; ++low) {
      const int32_t turn = static_cast<int32_t>(top << 24 | low) - (1 << 29);
      const auto a = pygen::unit_vector<FusedInHardware>(turn), b = pygen::unit_vector<FusedInDouble>(turn);
      different += differ(a.cosine, b.cosine) | differ(a.sine, b.sine);
    }
  }
  return different;
}

}  // namespace

int main() {
  const uint32_t workers = std::thread::hardware_concurrency();
  std::vector<int64_t> different(workers);
  std::vector<std::thread> threads;
  for (uint32_t worker = 0; worker < workers; ++worker)
    threads.emplace_back([&, worker] {
      for (uint32_t top = worker; top < 256; top += workers) different[worker] += count(top);
    });
  for (std::thread& thread : threads) thread.join();
  int64_t total = 0;
  for (const int64_t n : different) total += n;
  std::printf("%lld\n", static_cast<long long>(total));
}
