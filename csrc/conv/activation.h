// Activations on vectors: everything is local to the file that includes this, as in lanes.h.
#pragma once
#include "../lanes.h"
#include "../reparameterize/exponential.h"
#include "conv.h"

namespace pygen::PYGEN_ISA {
namespace {

// By expm1, which keeps the digits of small numbers; beyond the bound tanh rounds to 1.
template <class T>
PYGEN_HD T tanh_of(T x) {
  constexpr T kBound = sizeof(T) == 4 ? 10 : 20;
  x = x < -kBound ? -kBound : x;
  x = x > kBound ? kBound : x;
  const T excess = spread(2 * x).excess;
  return excess / (excess + 2);
}

template <class T>
PYGEN_HD T sigmoid_of(T x) {
  return 1 / (spread(-x).excess + 2);
}

template <class T, class F>
inline void each(typename Vector<T>::Lanes& lanes, const F& f) {
  T values[Vector<T>::kLanes];
  Vector<T>::store(lanes, values);
  for (int i = 0; i < Vector<T>::kLanes; ++i) values[i] = f(values[i]);
  Vector<T>::load(values, lanes);
}

template <class T>
inline void activate(int64_t activation, T slope, typename Vector<T>::Lanes* lanes, int n) {
  using Lanes = typename Vector<T>::Lanes;
  switch (activation) {
    case kRelu:
      for (int i = 0; i < n; ++i) lanes[i] = lanes[i] < 0 ? Lanes{} : lanes[i];
      break;
    case kLeakyRelu:
      for (int i = 0; i < n; ++i) lanes[i] = lanes[i] < 0 ? slope * lanes[i] : lanes[i];
      break;
    case kTanh:
      for (int i = 0; i < n; ++i) each<T>(lanes[i], [](T x) { return tanh_of(x); });
      break;
    case kSigmoid:
      for (int i = 0; i < n; ++i) each<T>(lanes[i], [](T x) { return sigmoid_of(x); });
      break;
    default:
      break;
  }
}

}  // namespace
}  // namespace pygen::PYGEN_ISA
