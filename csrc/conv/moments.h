// Sums of what channels have got, for batch norm's statistics: everything is local to the file that includes this, as
// in lanes.h.
#pragma once
#include "tile.h"

namespace pygen::PYGEN_ISA {
namespace {

// Of a vector of channels, about its first pixel.
template <class T>
struct Moments {
  using Lanes = typename Vector<T>::Lanes;
  Lanes shift = {}, sum = {}, squares = {};
  int64_t n = 0;

  void add(const Lanes& value) {
    if (n++ == 0) shift = value;
    const Lanes difference = value - shift;
    sum += difference;
    squares += difference * difference;
  }
  // To a summary, as conv.h has it.
  void store(int64_t channel, int64_t count, int64_t channels, double* moments) const {
    if (channel == 0) moments[0] = static_cast<double>(n);
    for (int64_t i = 0; i < least(count, kLanes<T>); ++i) {
      const double part = sum[i];
      moments[1 + channel + i] = shift[i] + part / n;
      moments[1 + channels + channel + i] = squares[i] > part * part / n ? squares[i] - part * part / n : 0;
    }
  }
};

}  // namespace
}  // namespace pygen::PYGEN_ISA
