// Components by their weights, on CPU and GPU alike: the inverse CDF of a uniform draw.
#pragma once
#include "../philox.h"

namespace pygen {

// The first component whose total exceeds the draw; totals are the running sums of the weights.
PYGEN_HD int64_t pick(const double* totals, int64_t components, double drawn) {
  int64_t begin = 0, end = components - 1;
  while (begin < end) {
    const int64_t middle = (begin + end) / 2;
    if (totals[middle] > drawn)
      end = middle;
    else
      begin = middle + 1;
  }
  return begin;
}

// The four draws of a block.
PYGEN_HD void pick(State state, uint64_t block, const double* totals, int64_t components, int64_t (&picks)[4]) {
  const Words x = philox(state, block, kUniformStream), y = philox(state, block, kUniformStream + kLowDigits);
  const double all = totals[components - 1];
  picks[0] = pick(totals, components, uniform(x.x0, y.x0) * all);
  picks[1] = pick(totals, components, uniform(x.x1, y.x1) * all);
  picks[2] = pick(totals, components, uniform(x.x2, y.x2) * all);
  picks[3] = pick(totals, components, uniform(x.x3, y.x3) * all);
}

}  // namespace pygen
