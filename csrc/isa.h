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
