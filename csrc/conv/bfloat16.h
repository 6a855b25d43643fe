// Vectors of numbers stored in bfloat16 and computed in float: everything is local to the file that includes this, as
// in lanes.h.
#pragma once
#include "../lanes.h"
#include "conv.h"

namespace pygen::PYGEN_ISA {
namespace {

template <>
struct Vector<BFloat16> {
  using Lanes = Vector<float>::Lanes;
  static constexpr int kLanes = Vector<float>::kLanes;

  static void load(const BFloat16* from, Lanes& lanes) {
    const Halves halves = *reinterpret_cast<const Unaligned*>(from);
    lanes = (Lanes)(__builtin_convertvector(halves, Words) << 16);
  }
  // To the nearest, of two equally near ones the even one.
  static void store(const Lanes& lanes, BFloat16* to) {
    const Words bits = (Words)lanes, rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    const Words chosen = lanes == lanes ? rounded : bits >> 16 | 0x40;
    *reinterpret_cast<Unaligned*>(to) = __builtin_convertvector(chosen, Halves);
  }

 private:
  typedef uint16_t Halves __attribute__((vector_size(kVectorBytes / 2)));
  typedef uint16_t Unaligned __attribute__((vector_size(kVectorBytes / 2), aligned(alignof(BFloat16)), may_alias));
  typedef uint32_t Words __attribute__((vector_size(kVectorBytes)));
};

inline float number(BFloat16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
template <class T>
inline T number(T x) {
  return x;
}

}  // namespace
}  // namespace pygen::PYGEN_ISA
