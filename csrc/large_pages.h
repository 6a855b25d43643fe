// Large pages for large results on the CPU.
#pragma once
#ifdef __linux__
#include <sys/mman.h>
#endif

#include "common.h"

namespace pygen {

// Asks for them under a result that is about to be written: page by page of 4 KB, the first touch of new memory costs
// more than the draws do. NumPy does so, too, from this size on.
inline void prefer_large_pages(const Tensor& result) {
#ifdef MADV_HUGEPAGE
  constexpr uintptr_t kPage = uintptr_t{1} << 21;
  constexpr int64_t kLeast = int64_t{1} << 22;
  const int64_t bytes = result.numel() * static_cast<int64_t>(result.element_size());
  if (bytes < kLeast) return;
  const uintptr_t address = reinterpret_cast<uintptr_t>(result.data_ptr());
  const uintptr_t begin = (address + kPage - 1) / kPage * kPage, end = (address + bytes) / kPage * kPage;
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // where it is refused, nothing is lost
#else
  (void)result;
#endif
}

}  // namespace pygen
