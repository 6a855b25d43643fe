// What runtime.cpp and warp.cpp share: the threads of the block that runs now. Neither is instrumented in any mode, so
// that the sanitizers see the kernel's accesses and nothing of what happens there.
#pragma once
#include <ucontext.h>

#include <deque>
#include <map>
#include <vector>

#include "simt.h"

#ifdef SIMT_THREAD
#include <sanitizer/tsan_interface.h>
#endif

namespace simt {

constexpr unsigned kWarp = 32;

enum class Wait { kNothing, kBlock, kWarp, kForever };

// Of a collective, given the payloads of the lanes that take part, null for others.
using Compute = void (*)(void* const lanes[kWarp]);

struct Fiber {
  ucontext_t context;
  const void* stack = nullptr;
  size_t stack_size = 0;
  void *fake_stack = nullptr, *thread_sanitizer = nullptr;

  unsigned number = 0;  // in its block
  Index index = {};
  Wait wait = Wait::kForever;
  Site site = {};
  unsigned mask = 0;
  bool aligned = false;
  Compute compute = nullptr;
  void *payload = nullptr, *barrier = nullptr;
  std::vector<Copy> open;
  std::deque<std::vector<Copy>> groups;
};

struct Shared {
  void* bytes = nullptr;
  size_t size = 0;
};

struct Block {
  Index index = {};
  Shared dynamic;
  std::map<const void*, Shared> statics;
  std::vector<Fiber*> threads;
  void* barrier = nullptr;
};

extern Block block;
extern Fiber scheduler;
extern Fiber* running;

void switch_to(Fiber& to);
void complete_collectives_of(unsigned warp);
const char* file_name(const char* path);

// Orders, to ThreadSanitizer, what came before a release before what comes after an acquire of the same object.
inline void release(void* object) {
#ifdef SIMT_THREAD
  __tsan_release(object);
#endif
  (void)object;
}
inline void acquire(void* object) {
#ifdef SIMT_THREAD
  __tsan_acquire(object);
#endif
  (void)object;
}
void* new_barrier();

}  // namespace simt
