// Collectives of a warp: barriers, shuffles, votes, matrix products.
#include <cstring>

#include "runtime.h"

namespace simt {
namespace {

// Whether all lanes that are named and have not returned are there; if so, computes and lets them go.
bool complete(const Fiber& one) {
  const unsigned first = one.number / kWarp * kWarp;
  void* lanes[kWarp] = {};
  Fiber* fibers[kWarp] = {};
  for (unsigned k = 0; k < kWarp; ++k) {
    if (!(one.mask >> k & 1)) continue;
    Fiber* f = first + k < block.threads.size() ? block.threads[first + k] : nullptr;
    if (f == nullptr || f->wait == Wait::kForever) {
      if (one.aligned)
        fail("%s at %s:%d: lane %u does not exist or has returned; all 32 must take part", one.site.operation,
             file_name(one.site.file), one.site.line, k);
      continue;
    }
    if (f->wait != Wait::kWarp || f->mask != one.mask || strcmp(f->site.operation, one.site.operation) != 0)
      return false;
    fibers[k] = f;
    lanes[k] = f->payload;
  }
  if (one.compute) one.compute(lanes);
  for (Fiber* f : fibers)
    if (f) f->wait = Wait::kNothing;
  return true;
}

// `aligned`: the result is undefined unless the whole warp takes part.
void collective(unsigned mask, bool aligned, Site site, void* payload, Compute compute) {
  Fiber& me = *running;
  if (!(mask >> (me.number % kWarp) & 1))
    fail("%s at %s:%d: lane %u is not in its own mask %08x", site.operation, file_name(site.file), site.line,
         me.number % kWarp, mask);
  me.wait = Wait::kWarp;
  me.site = site;
  me.mask = mask;
  me.aligned = aligned;
  me.payload = payload;
  me.compute = compute;
  if (!complete(me)) switch_to(scheduler);
}

// What the lanes that wait in the same barrier share.
void* barrier_of(unsigned mask, Site site) {
  const unsigned first = running->number / kWarp * kWarp;
  for (unsigned t = first; t < first + kWarp && t < block.threads.size(); ++t) {
    const Fiber& f = *block.threads[t];
    if (f.wait == Wait::kWarp && f.mask == mask && strcmp(f.site.operation, site.operation) == 0) return f.barrier;
  }
  return new_barrier();
}

struct Shuffle {
  uint64_t value, result;
  unsigned source;
};

struct Ballot {
  bool vote;
  unsigned result;
};

struct Gather {
  const void* mine;
  const void** all;
};

struct Product {
  Multiplicand type;
  float* c;
  const uint32_t *a, *b;
};

float from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

float from_half(uint32_t bits) {
  const uint32_t exponent = bits >> 10 & 31, fraction = bits & 0x3FF;
  const float sign = bits & 0x8000 ? -1.0f : 1.0f;
  if (exponent == 31) return from_bits((bits & 0x8000) << 16 | 0x7F800000 | fraction << 13);
  if (exponent == 0) return sign * static_cast<float>(fraction) * 0x1p-24f;
  return sign * from_bits((exponent + 112) << 23 | fraction << 13);
}

// The multiplicand in a register, or in its upper half.
float number(Multiplicand type, uint32_t bits, bool upper) {
  if (type == Multiplicand::kTFloat32) return from_bits(bits & 0xFFFFE000u);
  const uint32_t half = upper ? bits >> 16 : bits & 0xFFFF;
  return type == Multiplicand::kHalf ? from_half(half) : from_bits(half << 16);
}

// mma.sync m16n8k16 (16-bit types) and m16n8k8 (tf32), by the layouts of the PTX ISA's sections "Matrix Fragments for
// mma.m16n8k16 with floating point type" and "... mma.m16n8k8", which csrc/ptx.h repeats.
void multiply(void* const lanes[kWarp]) {
  const Product* warp[kWarp];
  for (unsigned k = 0; k < kWarp; ++k) warp[k] = static_cast<const Product*>(lanes[k]);
  const Multiplicand type = warp[0]->type;
  const bool pairs = type != Multiplicand::kTFloat32;
  const int depth = pairs ? 16 : 8;
  float a[16][16], b[16][8];
  for (int k = 0; k < depth; ++k) {
    const int lane = pairs ? k % 8 / 2 : k % 4, half = k / (depth / 2);
    const bool upper = pairs && k % 2;
    for (int row = 0; row < 16; ++row) a[row][k] = number(type, warp[row % 8 * 4 + lane]->a[row / 8 + 2 * half], upper);
    for (int column = 0; column < 8; ++column) b[k][column] = number(type, warp[column * 4 + lane]->b[half], upper);
  }
  for (int row = 0; row < 16; ++row)
    for (int column = 0; column < 8; ++column) {
      float& c = warp[row % 8 * 4 + column / 2]->c[row / 8 * 2 + column % 2];
      for (int k = 0; k < depth; ++k) c += a[row][k] * b[k][column];
    }
}

struct DoubleProduct {
  double a, b;
  double* c;
};

// mma.sync m8n8k4 in float64, by the PTX ISA's section "Matrix Fragments for mma.m8n8k4 with .f64 floating point type".
void multiply_doubles(void* const lanes[kWarp]) {
  const DoubleProduct* warp[kWarp];
  for (unsigned k = 0; k < kWarp; ++k) warp[k] = static_cast<const DoubleProduct*>(lanes[k]);
  for (int row = 0; row < 8; ++row)
    for (int column = 0; column < 8; ++column) {
      double& c = warp[row * 4 + column / 2]->c[column % 2];
      for (int k = 0; k < 4; ++k) c += warp[row * 4 + k]->a * warp[column * 4 + k]->b;
    }
}

}  // namespace

void complete_collectives_of(unsigned warp) {
  for (unsigned t = warp * kWarp; t < (warp + 1) * kWarp && t < block.threads.size(); ++t)
    if (block.threads[t]->wait == Wait::kWarp) complete(*block.threads[t]);
}

void warp_barrier(unsigned mask, Site site) {
  void* barrier = barrier_of(mask, site);
  running->barrier = barrier;
  release(barrier);
  collective(mask, false, site, running, nullptr);
  acquire(barrier);
}

uint64_t shuffle(unsigned mask, uint64_t value, unsigned source, Site site) {
  Shuffle mine = {value, ~uint64_t{0}, source};
  collective(mask, false, site, &mine, [](void* const lanes[kWarp]) {
    for (unsigned k = 0; k < kWarp; ++k) {
      Shuffle* one = static_cast<Shuffle*>(lanes[k]);
      if (one && lanes[one->source]) one->result = static_cast<Shuffle*>(lanes[one->source])->value;
    }
  });
  return mine.result;
}

unsigned ballot(unsigned mask, bool vote, Site site) {
  Ballot mine = {vote, 0};
  collective(mask, false, site, &mine, [](void* const lanes[kWarp]) {
    unsigned result = 0;
    for (unsigned k = 0; k < kWarp; ++k)
      if (lanes[k] && static_cast<Ballot*>(lanes[k])->vote) result |= 1u << k;
    for (unsigned k = 0; k < kWarp; ++k)
      if (lanes[k]) static_cast<Ballot*>(lanes[k])->result = result;
  });
  return mine.result;
}

void gather(const void* mine, const void* (&all)[32], Site site) {
  Gather addresses = {mine, all};
  collective(~0u, true, site, &addresses, [](void* const lanes[kWarp]) {
    for (unsigned to = 0; to < kWarp; ++to)
      for (unsigned from = 0; from < kWarp; ++from)
        static_cast<Gather*>(lanes[to])->all[from] = static_cast<Gather*>(lanes[from])->mine;
  });
}

void matrix_product(Multiplicand type, float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Site site) {
  Product mine = {type, c, a, b};
  collective(~0u, true, site, &mine, multiply);
}

void matrix_product(double (&c)[2], double a, double b, Site site) {
  DoubleProduct mine = {a, b, c};
  collective(~0u, true, site, &mine, multiply_doubles);
}

}  // namespace simt
