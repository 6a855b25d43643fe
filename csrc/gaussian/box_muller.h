// Box-Muller, the arithmetic of pygen/ops/box_muller.py operation by operation, where it is explained. Compile without
// contraction of multiplications and additions: every fused one is written out.
#pragma once
#include <cmath>

#include "../portable.h"

namespace pygen {

template <class T>
struct NormalPair {
  T cosine, sine;
};

struct FusedInHardware {
  static PYGEN_HD float fma(float a, float b, float c) { return fmaf(a, b, c); }
};

// The same bits for every argument met here (tests/ops/test_box_muller.py), and fast where there is no such
// instruction.
struct FusedInDouble {
  static PYGEN_HD float fma(float a, float b, float c) {
    return static_cast<float>(static_cast<double>(a) * static_cast<double>(b) + static_cast<double>(c));
  }
};

#if defined(__CUDA_ARCH__) || defined(__FMA__) || defined(__ARM_FEATURE_FMA)
using Fused = FusedInHardware;
#else
using Fused = FusedInDouble;
#endif

template <class F>
PYGEN_HD float radius(uint32_t word) {
  const float centred = F::fma(static_cast<float>(static_cast<int32_t>(word)), 0x1p-32f, 0x1p-33f);
  const float u = centred < 0.0f ? centred + 1.0f : centred;
  const int32_t bits = bit_cast<int32_t>(u);
  const int32_t exponent = (bits - 0x3F3504F3) >> 23;
  const float mantissa = bit_cast<float>(bits - exponent * (1 << 23));
  const float t = exponent == 0 ? centred : mantissa - 1.0f;
  float p = -0.1748107522726059f;
  p = F::fma(p, t, 0.28619736433029175f);
  p = F::fma(p, t, -0.2983352541923523f);
  p = F::fma(p, t, 0.331400603055954f);
  p = F::fma(p, t, -0.39924314618110657f);
  p = F::fma(p, t, 0.5000357031822205f);
  p = F::fma(p, t, -0.6666789650917053f);
  p = F::fma(p, t, 0.9999998211860657f);
  p = F::fma(p, t, -2.0f);
  return sqrtf(F::fma(static_cast<float>(exponent), -1.3862943649291992f, t * p));
}

// sin and cos of pi/4 turn / 2^29.
template <class F>
PYGEN_HD NormalPair<float> unit_vector(int32_t turn) {
  const float y = static_cast<float>(turn) * 0x1p-29f, square = y * y;
  float sine = -3.659276262624189e-05f;
  sine = F::fma(sine, square, 0.0024909931235015392f);
  sine = F::fma(sine, square, -0.08074582368135452f);
  sine = F::fma(sine, square, 0.7853981852531433f);
  float cosine = 3.4940869682031916e-06f;
  cosine = F::fma(cosine, square, -0.00032586869201622903f);
  cosine = F::fma(cosine, square, 0.015854284167289734f);
  cosine = F::fma(cosine, square, -0.3084251284599304f);
  cosine = F::fma(cosine, square, 1.0f);
  return {cosine, y * sine};
}

PYGEN_HD double radius(uint32_t word, uint32_t low) {
  const double centred =
      (static_cast<double>(low) + 0.5) * 0x1p-64 + static_cast<double>(static_cast<int32_t>(word)) * 0x1p-32;
  const double u = centred < 0.0 ? centred + 1.0 : centred;
  const uint64_t bits = bit_cast<uint64_t>(u);
  const int32_t exponent = (static_cast<int32_t>(bits >> 32) - 0x3FE6A09E) >> 20;
  const double mantissa = bit_cast<double>(bits - (static_cast<uint64_t>(static_cast<uint32_t>(exponent)) << 52));
  const double t = exponent == 0 ? centred : mantissa - 1.0;
  const double s = t / (t + 2.0), z = s * s, half_square = t * t * 0.5, e = static_cast<double>(exponent);
  double p = 1.479819860511658591e-01;
  p = p * z + 1.531383769920937332e-01;
  p = p * z + 1.818357216161805012e-01;
  p = p * z + 2.222219843214978396e-01;
  p = p * z + 2.857142874366239149e-01;
  p = p * z + 3.999999999940941908e-01;
  p = p * z + 6.666666666666735130e-01;
  const double tail = s * (half_square + z * p) + e * 1.90821492927058770002e-10;
  return sqrt(-2.0 * (e * 6.93147180369123816490e-01 - ((half_square - tail) - t)));
}

PYGEN_HD NormalPair<double> unit_vector(int32_t turn, uint32_t low) {
  const double x = (static_cast<double>(low) * 0x1p-32 + static_cast<double>(turn)) * 0x1p-29 * 0.785398163397448309616;
  const double z = x * x, half_square = z * 0.5, w = 1.0 - half_square;
  double sine = 1.58969099521155010221e-10;
  sine = sine * z + -2.50507602534068634195e-08;
  sine = sine * z + 2.75573137070700676789e-06;
  sine = sine * z + -1.98412698298579493134e-04;
  sine = sine * z + 8.33333333332248946124e-03;
  sine = sine * z + -1.66666666666666324348e-01;
  double cosine = -1.13596475577881948265e-11;
  cosine = cosine * z + 2.08757232129817482790e-09;
  cosine = cosine * z + -2.75573143513906633035e-07;
  cosine = cosine * z + 2.48015872894767294178e-05;
  cosine = cosine * z + -1.38888888888741095749e-03;
  cosine = cosine * z + 4.16666666666666019037e-02;
  return {w + (((1.0 - w) - half_square) + z * (z * cosine)), x * z * sine + x};
}

// The quadrant of a 32-bit angle, and the rest in [-2^29, 2^29).
struct Angle {
  uint32_t quadrant;
  int32_t turn;
};

PYGEN_HD Angle split(uint32_t word) {
  const uint32_t quadrant = (word + (1u << 29)) >> 30;
  return {quadrant, static_cast<int32_t>(word - (quadrant << 30))};
}

template <class T>
PYGEN_HD NormalPair<T> rotate(T r, NormalPair<T> v, uint32_t quadrant) {
  const bool odd = quadrant & 1;
  const T cosine = (odd ? v.sine : v.cosine) * r, sine = (odd ? v.cosine : v.sine) * r;
  return {(quadrant + 1) & 2 ? -cosine : cosine, quadrant & 2 ? -sine : sine};
}

template <class F = Fused>
PYGEN_HD NormalPair<float> box_muller(uint32_t x0, uint32_t x1) {
  const Angle angle = split(x1);
  return rotate(radius<F>(x0), unit_vector<F>(angle.turn), angle.quadrant);
}

PYGEN_HD NormalPair<double> box_muller(uint32_t x0, uint32_t x1, uint32_t low0, uint32_t low1) {
  const Angle angle = split(x1);
  return rotate(radius(x0, low0), unit_vector(angle.turn, low1), angle.quadrant);
}

}  // namespace pygen
