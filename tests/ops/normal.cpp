// csrc/gaussian/cpu.cpp for one instruction set, PYGEN_ISA, behind a C function.
#include "csrc/gaussian/cpu.cpp"

extern "C" void fill(int64_t seed, int64_t offset, int64_t n, float* singles, double* doubles) {
  const pygen::State state = {static_cast<uint64_t>(seed), static_cast<uint64_t>(offset)};
  pygen::PYGEN_ISA::kNormal.fill_float(state, 0, (n + 3) / 4, n, singles);
  pygen::PYGEN_ISA::kNormal.fill_double(state, 0, (n + 3) / 4, n, doubles);
}
