// Philox4x32-10 (Salmon et al., SC 2011). The counter's layout is documented in pygen/ops/philox.py.
#pragma once
#include "portable.h"

namespace pygen {

constexpr uint32_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57, kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;

constexpr uint32_t kNormalStream = 0, kUniformStream = 1;
constexpr uint32_t kLowDigits = 2;  // added to a stream: 32 more digits of its draws

struct Words {
  uint32_t x0, x1, x2, x3;
};

struct State {
  uint64_t seed, offset;
};

PYGEN_HD Words philox(State state, uint64_t block, uint32_t stream) {
  const uint64_t counter = state.offset + block;
  uint32_t c0 = static_cast<uint32_t>(counter), c1 = static_cast<uint32_t>(counter >> 32), c2 = stream, c3 = 0;
  uint32_t k0 = static_cast<uint32_t>(state.seed), k1 = static_cast<uint32_t>(state.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{kMultiplier0} * c0, p1 = uint64_t{kMultiplier1} * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(p1);
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(p0);
    k0 += kWeyl0;
    k1 += kWeyl1;
  }
  return {c0, c1, c2, c3};
}

// In [0, 1), a multiple of 2^-24.
PYGEN_HD float uniform(uint32_t word) { return static_cast<float>(word >> 8) * 0x1p-24f; }

// The same draw with more digits, a multiple of 2^-53.
PYGEN_HD double uniform(uint32_t high, uint32_t low) {
  return static_cast<double>(static_cast<uint64_t>(high) << 21 | low >> 11) * 0x1p-53;
}

}  // namespace pygen
