// What CUDA C++ has no words for: every inline PTX instruction, and shared memory. Nothing else in csrc uses either, so
// that tests/simt/include/simt_ptx.h can stand for this header where kernels are executed on the CPU.
#ifndef PYGEN_PTX_H
#define PYGEN_PTX_H
#include <cstdint>

namespace pygen {

// The dynamic shared memory of the launch, aligned to 128 bytes.
template <class T>
__device__ __forceinline__ T* shared_memory() {
  extern __shared__ __align__(128) unsigned char pygen_dynamic_shared[];
  return reinterpret_cast<T*>(pygen_dynamic_shared);
}

// The block's one object of type T, uninitialised: name a struct for all that a kernel shares.
template <class T>
__device__ __forceinline__ T& static_shared() {
  __shared__ T object;
  return object;
}

__device__ __forceinline__ uint32_t shared_address(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// Copies kBytes (4, 8 or 16, both sides aligned to as many) from global to shared memory, or zeros if not `valid`; then
// `from` is not read. They have arrived, for this thread, after the cp_async_wait that follows their commit, and for
// others after a barrier behind that.
template <int kBytes>
__device__ __forceinline__ void cp_async(void* to, const void* from, bool valid = true) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16, "cp.async copies 4, 8 or 16 bytes");
  const int bytes = valid ? kBytes : 0;
  if constexpr (kBytes == 16)  // past the first-level cache, which only 16 bytes can
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(to)), "l"(from), "n"(kBytes),
                 "r"(bytes)
                 : "memory");
}

__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Until at most the kAllowed newest groups have not arrived.
template <int kAllowed>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kAllowed) : "memory");
}

// Loads 8x8 matrices of 16-bit elements, lane 8 j + i giving the 16-byte aligned address of row i of matrix j. Lane l
// gets elements 2 (l % 4) and the next of row l / 4 of each. All 32 lanes take part.
__device__ __forceinline__ void ldmatrix(uint32_t (&to)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void ldmatrix(uint32_t (&to)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(to[0]), "=r"(to[1])
               : "r"(shared_address(row))
               : "memory");
}

// The same of the transposed matrices: rows 2 (l % 4) and the next of column l / 4.
__device__ __forceinline__ void ldmatrix_transposed(uint32_t (&to)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_transposed(uint32_t (&to)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(to[0]), "=r"(to[1])
               : "r"(shared_address(row))
               : "memory");
}

// c += a b, with c [16, 8] in float32, a [16, k] and b [k, 8]; k is 16 for 16-bit types, 8 for tf32. With g = lane / 4
// and t = lane % 4: c holds (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1). 16-bit: a holds (g, 2t), (g + 8, 2t),
// (g, 2t + 8), (g + 8, 2t + 8), b (2t, g), (2t + 8, g), each with the next k. tf32: a holds (g, t), (g + 8, t), (g, t +
// 4), (g + 8, t + 4), b (t, g), (t + 4, g).
#define PYGEN_MMA(name, instruction)                                                                                \
  __device__ __forceinline__ void name(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {           \
    asm volatile("mma.sync.aligned." instruction " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                                   \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                                   \
  }
PYGEN_MMA(mma_bf16, "m16n8k16.row.col.f32.bf16.bf16.f32")
PYGEN_MMA(mma_half, "m16n8k16.row.col.f32.f16.f16.f32")
PYGEN_MMA(mma_tf32, "m16n8k8.row.col.f32.tf32.tf32.f32")
#undef PYGEN_MMA

// c += a b in float64, with c [8, 8], a [8, 4] and b [4, 8]: a holds (g, t), b (t, g), c (g, 2t) and (g, 2t + 1).
__device__ __forceinline__ void mma_double(double (&c)[2], double a, double b) {
  asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%3}, {%0, %1};"
               : "+d"(c[0]), "+d"(c[1])
               : "d"(a), "d"(b));
}

// To nearest. Ties go to even where that is one instruction, from sm_90 on; before, with three, away from zero.
__device__ __forceinline__ uint32_t to_tf32(float x) {
  uint32_t bits;
#if __CUDA_ARCH__ >= 900
  asm("cvt.rn.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
#else
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
#endif
  return bits;
}

// Two numbers in one register, rounded to nearest even.
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
  uint32_t bits;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
}
__device__ __forceinline__ uint32_t pack_half(float low, float high) {
  uint32_t bits;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
}

}  // namespace pygen
#endif
