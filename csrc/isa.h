// Chooses, among the kernels that CMake compiled once per instruction set, those for this processor.
#pragma once

// PYGEN_BEST(kernels): `kernels` of the best of the namespaces baseline, avx2 and avx512.
#ifdef PYGEN_X86_64
#define PYGEN_BEST(kernels)                         \
  (::pygen::has_avx512() ? ::pygen::avx512::kernels \
   : ::pygen::has_avx2() ? ::pygen::avx2::kernels   \
                         : ::pygen::baseline::kernels)

namespace pygen {

inline bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

inline bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}

}  // namespace pygen
#else
#define PYGEN_BEST(kernels) (::pygen::baseline::kernels)
#endif

// Where the compiler knows the matrix unit, kernels are in the namespace amx, too.
#ifdef PYGEN_AMX
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace pygen {

// Whether there are such kernels, and the processor and the system let this process use the unit for bfloat16, which it
// has to ask for (Linux: Documentation/arch/x86/xstate.rst).
inline bool has_amx() {
#ifdef PYGEN_AMX
  static const bool has = [] {
    constexpr unsigned kBFloat16 = 1u << 22, kTiles = 1u << 24;
    constexpr long kAsk = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    unsigned a, b, c, d;
    return has_avx512() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & kBFloat16) && (d & kTiles) &&
           syscall(SYS_arch_prctl, kAsk, kTileData) == 0;
  }();
  return has;
#else
  return false;
#endif
}

}  // namespace pygen
