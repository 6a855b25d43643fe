// What a log-variance means, exp(logvar / 2) and expm1(logvar), in one go. As in box_muller.h every operation is
// written out, float in fused multiply-adds and double without, so that CPU and GPU agree bit for bit.
#pragma once
#include "../gaussian/box_muller.h"

namespace pygen {

template <class T>
struct Spread {
  T deviation, excess;  // exp(logvar / 2), which is 0 below the smallest normal number, and exp(logvar) - 1
};

// Both from x = logvar / 2 = k ln 2 + r and p = expm1(r): the deviation s = 2^k (1 + p); the excess is e (e + 2) with
// e = expm1(x), which is p itself where k = 0 and s - 1, without cancellation, elsewhere. k is rounded and read by
// adding 1.5 2^23 (2^52): no conversion, which NaN would not survive.
template <class F = Fused>
PYGEN_HD Spread<float> spread(float logvar) {
  constexpr float kShift = 0x1.8p23f;
  float x = 0.5f * logvar;
  x = x < -88.0f ? -88.0f : x;  // k = -127, whose power is 0
  x = x > 89.0f ? 89.0f : x;    // k = 128, whose power is infinite
  const float shifted = F::fma(x, 1.44269504089f, kShift), k = shifted - kShift;
  const float r = F::fma(k, 1.90465421e-9f, F::fma(k, -0.693147182f, x));
  // (expm1(r) - r) / r^2 on [-ln 2 / 2, ln 2 / 2], error of the result 1.4e-8.
  float p = 0.0013900421326979995f;
  p = F::fma(p, r, 0.008366111665964127f);
  p = F::fma(p, r, 0.04166682809591293f);
  p = F::fma(p, r, 0.1666654795408249f);
  p = F::fma(p, r, 0.5f);
  p = p * (r * r) + r;
  const uint32_t power = (bit_cast<uint32_t>(shifted) - (bit_cast<uint32_t>(kShift) - 127)) << 23;
  const float s = (p + 1.0f) * bit_cast<float>(power);
  const float e = k == 0.0f ? p : s - 1.0f;
  return {s, e * (e + 2.0f)};
}

PYGEN_HD Spread<double> spread(double logvar) {
  constexpr double kShift = 0x1.8p52;
  double x = 0.5 * logvar;
  x = x < -709.0 ? -709.0 : x;  // k = -1023
  x = x > 710.0 ? 710.0 : x;    // k = 1024
  const double shifted = x * 1.4426950408889634074 + kShift, k = shifted - kShift;
  const double r = (x - k * 6.93147180369123816490e-01) - k * 1.90821492927058770002e-10;
  // Taylor's series, error of the result 5e-18.
  double p = 1.0 / 6227020800;
  p = p * r + 1.0 / 479001600;
  p = p * r + 1.0 / 39916800;
  p = p * r + 1.0 / 3628800;
  p = p * r + 1.0 / 362880;
  p = p * r + 1.0 / 40320;
  p = p * r + 1.0 / 5040;
  p = p * r + 1.0 / 720;
  p = p * r + 1.0 / 120;
  p = p * r + 1.0 / 24;
  p = p * r + 1.0 / 6;
  p = p * r + 0.5;
  p = p * (r * r) + r;
  const uint64_t power = (bit_cast<uint64_t>(shifted) - (bit_cast<uint64_t>(kShift) - 1023)) << 52;
  const double s = (p + 1.0) * bit_cast<double>(power);
  const double e = k == 0.0 ? p : s - 1.0;
  return {s, e * (e + 2.0)};
}

}  // namespace pygen
