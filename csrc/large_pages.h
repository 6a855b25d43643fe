// Large pages for large results on the CPU.
#pragma once
#ifdef __linux__
#include <sys/mman.h>
#endif

#include "common.h"

namespace pygen {

constexpr size_t kLargePage = size_t{1} << 21;

// Asks for them where they fit, before the memory is written.
inline void prefer_large_pages(void* memory, size_t bytes) {
#ifdef MADV_HUGEPAGE
  const uintptr_t address = reinterpret_cast<uintptr_t>(memory);
  const uintptr_t begin = (address + kLargePage - 1) / kLargePage * kLargePage,
                  end = (address + bytes) / kLargePage * kLargePage;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // refused, nothing is lost
#else
  (void)memory, (void)bytes;
#endif
}

// Under a result: page by page of 4 KB, the first touch of new memory costs more than the draws do. NumPy asks, too,
// from this size on.
inline void prefer_large_pages(const Tensor& result) {
  constexpr size_t kLeast = size_t{1} << 22;
  const size_t bytes = result.numel() * result.element_size();
  if (bytes >= kLeast) prefer_large_pages(result.data_ptr(), bytes);
}

}  // namespace pygen
