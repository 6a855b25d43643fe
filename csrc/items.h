// Work in items that cost much and are written apart: what a thread computes of them does not show in the result.
#pragma once
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <vector>

namespace pygen {

// Calls f(item) for all items. Each thread begins with a part of its own, the same one in every call of as many items,
// and then helps the others, so that none waits for one that is slower or that the system has stopped.
template <class F>
void over_items(int64_t items, const F& f) {
  struct alignas(64) Part {
    std::atomic<int64_t> next;
    int64_t end;
  };
  const int64_t threads = std::max<int64_t>(1, std::min<int64_t>(torch::stable::get_num_threads(), items));
  std::vector<Part> parts(threads);
  for (int64_t i = 0; i < threads; ++i) parts[i].next = items * i / threads, parts[i].end = items * (i + 1) / threads;
  torch::stable::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t own = begin; own < end; ++own)
      for (int64_t i = own; i < own + threads; ++i) {
        Part& part = parts[i % threads];
        for (int64_t item = part.next++; item < part.end; item = part.next++) f(item);
      }
  });
}

}  // namespace pygen
