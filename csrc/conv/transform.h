// The minimal algorithm F(4, 2) for correlations with two taps: four results with five products instead of eight
// (S. Winograd: Arithmetic complexity of computations, 1980; A. Lavin, S. Gray: Fast algorithms for convolutional
// neural networks, 2016), so that a tile of 4x4 results of 2x2 taps takes 25 products instead of 64. Polynomials are
// evaluated at
// +-3/8, +-5/4 and infinity: of all symmetric points these cost the fewest digits, half of what 0, +-1, 2 do.
#pragma once
#include "tile.h"

namespace pygen::PYGEN_ISA {
namespace {

constexpr int kTile = 4, kPoints = 5, kProducts = kPoints * kPoints;
constexpr double kNear = 0.375, kFar = 1.25, kNear2 = kNear * kNear, kFar2 = kFar * kFar;

// Five inputs d_i .. d_i+4 of the results r_i = d_i g_0 + d_i+1 g_1.
template <class T, class V>
inline __attribute__((always_inline)) void inputs_to_points(V& a, V& b, V& c, V& d, V& e) {
  const V even_near = c - T(kFar2) * a, odd_near = d - T(kFar2) * b, even_far = c - T(kNear2) * a,
          odd_far = d - T(kNear2) * b;
  e = e - T(kNear2 + kFar2) * c + T(kNear2 * kFar2) * a;
  a = odd_near + T(kNear) * even_near;
  b = odd_near - T(kNear) * even_near;
  c = odd_far + T(kFar) * even_far;
  d = odd_far - T(kFar) * even_far;
}

// Two taps.
template <class T, class V>
inline __attribute__((always_inline)) void taps_to_points(const V& g0, const V& g1, V (&to)[kPoints]) {
  constexpr double kNorm = 2 * (kNear2 - kFar2);
  const V near0 = T(1 / (kNear * kNorm)) * g0, near1 = T(1 / kNorm) * g1, far0 = T(-1 / (kFar * kNorm)) * g0,
          far1 = T(-1 / kNorm) * g1;
  to[0] = near1 + near0;
  to[1] = near1 - near0;
  to[2] = far1 + far0;
  to[3] = far1 - far0;
  to[4] = g1;
}

// Four results of five products.
template <class T, class V>
inline __attribute__((always_inline)) void results_of_points(const V& a, const V& b, const V& c, const V& d, const V& e,
                                                             V (&to)[kTile]) {
  const V even_near = a + b, odd_near = T(kNear) * (a - b), even_far = c + d, odd_far = T(kFar) * (c - d);
  to[0] = even_near + even_far;
  to[1] = odd_near + odd_far;
  to[2] = T(kNear2) * even_near + T(kFar2) * even_far;
  to[3] = T(kNear2) * odd_near + T(kFar2) * odd_far + e;
}

// The adjoints, which the weight's gradient takes: of four results' gradients, and of two taps.
template <class T, class V>
inline __attribute__((always_inline)) void results_to_points(const V& a, const V& b, const V& c, const V& d,
                                                             V (&to)[kPoints]) {
  const V even_near = a + T(kNear2) * c, odd_near = T(kNear) * (b + T(kNear2) * d), even_far = a + T(kFar2) * c,
          odd_far = T(kFar) * (b + T(kFar2) * d);
  to[0] = even_near + odd_near;
  to[1] = even_near - odd_near;
  to[2] = even_far + odd_far;
  to[3] = even_far - odd_far;
  to[4] = d;
}

template <class T, class V>
inline __attribute__((always_inline)) void taps_of_points(const V& a, const V& b, const V& c, const V& d, const V& e,
                                                          V& g0, V& g1) {
  constexpr double kNorm = 2 * (kNear2 - kFar2);
  g0 = T(1 / (kNear * kNorm)) * (a - b) - T(1 / (kFar * kNorm)) * (c - d);
  g1 = T(1 / kNorm) * (a + b) - T(1 / kNorm) * (c + d) + e;
}

// Two taps, or four results' gradients, at one point alone: what of them it takes.
template <class T>
struct Point {
  T taps[2] = {}, results[kTile] = {};

  explicit Point(int i) {
    constexpr double kAt[] = {kNear, -kNear, kFar, -kFar}, kNorm = 2 * (kNear2 - kFar2);
    if (i == kPoints - 1) {
      taps[1] = results[kTile - 1] = 1;
      return;
    }
    const double norm = i < 2 ? kNorm : -kNorm;
    taps[0] = static_cast<T>(1 / (kAt[i] * norm));
    taps[1] = static_cast<T>(1 / norm);
    double power = 1;
    for (int k = 0; k < kTile; ++k, power *= kAt[i]) results[k] = static_cast<T>(power);
  }
};

// A tile's window into a picture: rows `step` pixels apart, and zeros outside of the picture.
template <class T, int kSide>
struct Window {
  const T* pixels[kSide * kSide];

  Window() = default;
  Window(const T* picture, int64_t height, int64_t width, int64_t channels, int64_t y, int64_t x, int64_t step,
         const T* zeros) {
    for (int r = 0; r < kSide; ++r)
      for (int s = 0; s < kSide; ++s) {
        const int64_t row = y + r * step, column = x + s * step;
        const bool inside = row >= 0 && row < height && column >= 0 && column < width;
        pixels[r * kSide + s] = inside ? picture + (row * width + column) * channels : zeros;
      }
  }
};

// A vector of channels of all inputs of a tile, transformed.
template <bool kWhole, class T>
inline void transform_inputs(const Window<T, kPoints>& window, int64_t channel, int64_t count,
                             typename Vector<T>::Lanes (&d)[kProducts]) {
#pragma GCC unroll 25
  for (int i = 0; i < kProducts; ++i)
    if constexpr (kWhole)
      Vector<T>::load(window.pixels[i] + channel, d[i]);
    else
      load(window.pixels[i] + channel, count, d[i]);
#pragma GCC unroll 5
  for (int i = 0; i < kPoints; ++i)
    inputs_to_points<T>(d[i], d[kPoints + i], d[2 * kPoints + i], d[3 * kPoints + i], d[4 * kPoints + i]);
#pragma GCC unroll 5
  for (int i = 0; i < kProducts; i += kPoints) inputs_to_points<T>(d[i], d[i + 1], d[i + 2], d[i + 3], d[i + 4]);
}

// How many panels an item takes, with one transform of the other matrix for all, if there are so many items for each of
// them: as many as fit into a second-level cache, but threads need items, too, and equal ones.
template <class T>
inline int64_t strip_of(int64_t panels, int64_t items) {
  constexpr int64_t kStrip = 128 / kColumns<T>, kItems = 8;
  const int64_t fewest = over(panels, kStrip), wanted = least(panels, over(kItems, items));
  return over(panels, fewest > wanted ? fewest : wanted);
}

// Where the taps of a parity are among 4x4. A result of `up` at 2 i + p is the sum over t of input i - 1 + p + t and
// tap 3 - p - 2 t; one of `down` at i is, over both p, that of input 2 (i - p + t) + p and tap 1 - p + 2 t.
inline int tap(bool up, int parity, int t) { return up ? 3 - parity - 2 * t : 1 - parity + 2 * t; }

}  // namespace
}  // namespace pygen::PYGEN_ISA
