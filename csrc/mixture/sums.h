// Sums over groups of rows, as the bindings of the mixture family take them.
#pragma once
#include <algorithm>
#include <vector>

#include "../common.h"
#include "mixture.h"

namespace pygen {

// Pairs that are sorted by group together: their rows are still in cache when the second group comes to them, and
// there are enough for each group.
constexpr int64_t kSorted = 128, kSortedPerGroup = 16;
constexpr int64_t kColumns = 64;  // columns a thread takes at least: whole cache lines of every row

// Appends pairs sorted by group, those of a group in their order, and adds their weights to counts [groups].
inline void sort_pairs(const Pair* pairs, int64_t n, double* counts, std::vector<int64_t>& places,
                       std::vector<Pair>& sorted) {
  std::fill(places.begin(), places.end(), 0);
  for (int64_t i = 0; i < n; ++i) {
    counts[pairs[i].group] += pairs[i].weight;
    ++places[pairs[i].group + 1];
  }
  for (size_t group = 1; group < places.size(); ++group) places[group] += places[group - 1];
  const size_t begin = sorted.size();
  sorted.resize(begin + n);
  for (int64_t i = 0; i < n; ++i) sorted[begin + places[pairs[i].group]++] = pairs[i];
}

struct Sums {
  explicit Sums(const Tensor& means)
      : means(means),
        counts(torch::stable::new_empty(means, {means.size(0)})),
        first(torch::stable::empty_like(means)),
        second(torch::stable::empty_like(means)) {
    for (Tensor* sums : {&counts, &first, &second}) torch::stable::zero_(*sums);
  }

  template <class T>
  void add(const T* x, const std::vector<Pair>& sorted, AddMoments<T> run) {
    const Moments<T> arguments = {x,
                                  sorted.data(),
                                  static_cast<int64_t>(sorted.size()),
                                  data<double>(means),
                                  data<double>(first),
                                  data<double>(second),
                                  means.size(1)};
    torch::stable::parallel_for(0, means.size(1), kColumns,
                                [&](int64_t begin, int64_t end) { run(arguments, begin, end); });
  }

  const Tensor means;
  Tensor counts, first, second;
};

}  // namespace pygen
