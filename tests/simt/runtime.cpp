// Runs CUDA threads on the CPU: one fiber each, one block at a time.
#include "runtime.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#ifdef SIMT_ADDRESS
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef SIMT_THREAD
extern "C" {
void AnnotateIgnoreReadsBegin(const char*, int);
void AnnotateIgnoreReadsEnd(const char*, int);
void AnnotateIgnoreWritesBegin(const char*, int);
void AnnotateIgnoreWritesEnd(const char*, int);
}
#endif

namespace simt {

Coordinates coordinates;
Block block;
Fiber scheduler;
Fiber* running = &scheduler;

namespace {

constexpr unsigned kMaxThreads = 1024, kMaxGridYZ = 65535;
constexpr size_t kStack = 256 << 10, kDefaultShared = 48 << 10, kMaxShared = 227 << 10;

Launch launch;
std::vector<Fiber*> pool;
std::map<const void*, int> allowed_dynamic_shared;
char launch_begins, launch_ends;

// Fresh memory of exact size per block, all bits set: a NaN in every floating-point type. Allocated unseen, it has no
// history for ThreadSanitizer, so that blocks do not race with each other in it.
struct Unseen {
#ifdef SIMT_THREAD
  Unseen() {
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  ~Unseen() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  }
#else
  Unseen() {}
#endif
};

Shared new_shared(size_t size, size_t alignment) {
  const Unseen unseen;
  Shared shared = {nullptr, size};
  if (posix_memalign(&shared.bytes, alignment, size) != 0) fail("no memory for %zu bytes of shared memory", size);
  memset(shared.bytes, 0xFF, size);
  return shared;
}

void free_shared() {
  const Unseen unseen;
  free(block.dynamic.bytes);
  for (auto& object : block.statics) free(object.second.bytes);
  block.statics.clear();
}

// ---- Fibers --------------------------------------------------------------------------------------------------------

// A fiber plays a thread of one block, then waits to be given one of the next.
void play() {
#ifdef SIMT_ADDRESS
  __sanitizer_finish_switch_fiber(nullptr, &scheduler.stack, &scheduler.stack_size);
#endif
  for (;;) {
    acquire(&launch_begins);
    launch.thread(launch.kernel_and_arguments);
    release(&launch_ends);
    Fiber& me = *running;
    me.wait = Wait::kForever;
    me.open.clear();
    me.groups.clear();
    complete_collectives_of(me.number / kWarp);
    switch_to(scheduler);
  }
}

Fiber* new_fiber() {
  Fiber* fiber = new Fiber;
  const size_t guard = 4096;
  void* memory =
      mmap(nullptr, guard + kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, guard, PROT_NONE) != 0) fail("no memory for a stack");
  char* stack = static_cast<char*>(memory) + guard;
  fiber->stack = stack;
  fiber->stack_size = kStack;
  getcontext(&fiber->context);
  fiber->context.uc_stack.ss_sp = stack;
  fiber->context.uc_stack.ss_size = kStack;
  fiber->context.uc_link = nullptr;
  makecontext(&fiber->context, play, 0);
#ifdef SIMT_THREAD
  fiber->thread_sanitizer = __tsan_create_fiber(0);
#endif
  return fiber;
}

// ---- A block -------------------------------------------------------------------------------------------------------

[[noreturn]] void fail_deadlocked() {
  char text[2000] = "";
  size_t length = 0;
  unsigned told = 0;
  const Fiber* last = nullptr;
  for (const Fiber* f : block.threads) {
    if (f->wait != Wait::kBlock && f->wait != Wait::kWarp) continue;
    if (last && last->site.line == f->site.line && last->mask == f->mask && last->wait == f->wait) continue;
    last = f;
    if (++told > 8) break;
    length += snprintf(text + length, sizeof text - length, "\n  from thread %u on: %s, %s:%d", f->number,
                       f->site.operation, file_name(f->site.file), f->site.line);
    if (f->wait == Wait::kWarp) length += snprintf(text + length, sizeof text - length, ", mask %08x", f->mask);
  }
  fail("deadlock: threads wait for others that do not come%s", text);
}

// All threads that have not returned must come, and to the same barrier.
bool open_block_barrier() {
  const Fiber* first = nullptr;
  for (const Fiber* f : block.threads) {
    if (f->wait == Wait::kForever) continue;
    if (f->wait != Wait::kBlock) return false;
    if (!first) first = f;
    if (f->site.line != first->site.line || strcmp(f->site.file, first->site.file) != 0)
      fail("divergent barrier: thread %u waits in __syncthreads at %s:%d, thread %u at %s:%d", first->number,
           file_name(first->site.file), first->site.line, f->number, file_name(f->site.file), f->site.line);
  }
  for (Fiber* f : block.threads)
    if (f->wait == Wait::kBlock) f->wait = Wait::kNothing;
  block.barrier = new_barrier();
  return first != nullptr;
}

void run_block(bool backwards) {
  const size_t n = block.threads.size();
  for (;;) {
    bool ran = false, alive = false;
    for (size_t i = 0; i < n; ++i) {
      Fiber& f = *block.threads[backwards ? n - 1 - i : i];
      if (f.wait != Wait::kNothing) continue;
      ran = true;
      switch_to(f);
    }
    for (const Fiber* f : block.threads) alive |= f->wait != Wait::kForever;
    if (!alive) return;
    if (!open_block_barrier() && !ran) fail_deadlocked();
  }
}

// To ThreadSanitizer blocks run at the same time as long as no fiber plays in both, and a fiber takes it a megabyte. So
// neighbours share none where 512 are enough.
void deal_threads(unsigned n, uint64_t turn, uint64_t blocks) {
#ifdef SIMT_THREAD
  const size_t fibers = std::min<uint64_t>(n * blocks, std::max(512u, n + 1));
#else
  const size_t fibers = n;
#endif
  while (pool.size() < fibers) pool.push_back(new_fiber());
  block.threads.clear();
  for (unsigned t = 0; t < n; ++t) {
    Fiber* fiber = pool[(turn * n + t) % pool.size()];
    const Index& size = launch.block;
    fiber->number = t;
    fiber->index = {t % size.x, t / size.x % size.y, t / (size.x * size.y)};
    fiber->wait = Wait::kNothing;
    block.threads.push_back(fiber);
  }
}

void check(const Launch& l) {
  const uint64_t threads = uint64_t{l.block.x} * l.block.y * l.block.z;
  if (threads == 0 || threads > kMaxThreads || l.block.z > 64)
    fail("a GPU refuses this launch: block of %u x %u x %u threads; 1 to %u, and at most 64 in z", l.block.x, l.block.y,
         l.block.z, kMaxThreads);
  if (l.grid.x == 0 || l.grid.y == 0 || l.grid.z == 0 || l.grid.x > 0x7FFFFFFF || l.grid.y > kMaxGridYZ ||
      l.grid.z > kMaxGridYZ)
    fail("a GPU refuses this launch: grid of %u x %u x %u blocks; 1 to 2^31 - 1, %u and %u", l.grid.x, l.grid.y,
         l.grid.z, kMaxGridYZ, kMaxGridYZ);
  const auto found = allowed_dynamic_shared.find(l.kernel);
  const size_t allowed = found == allowed_dynamic_shared.end() ? kDefaultShared : static_cast<size_t>(found->second);
  if (l.dynamic_shared > allowed)
    fail("a GPU refuses this launch: %zu bytes of dynamic shared memory, %zu allowed; cudaFuncSetAttribute allows more",
         l.dynamic_shared, allowed);
}

}  // namespace

// ---- What warp.cpp shares ------------------------------------------------------------------------------------------

// Every barrier, each time it is waited in, orders its own threads only: a lane that has gone on to the next barrier
// must not be ordered before one that still has to leave this. Old objects are used again when nobody waits in them.
void* new_barrier() {
  static uint64_t objects[1024];
  static unsigned count = 0;
  return &objects[count++ % 1024];
}

void switch_to(Fiber& to) {
  Fiber& from = *running;
  running = &to;
  coordinates = {to.index, block.index, launch.block, launch.grid, to.number % kWarp};
#ifdef SIMT_ADDRESS
  __sanitizer_start_switch_fiber(&from.fake_stack, to.stack, to.stack_size);
#endif
#ifdef SIMT_THREAD
  __tsan_switch_to_fiber(to.thread_sanitizer, __tsan_switch_to_fiber_no_sync);
#endif
  swapcontext(&from.context, &to.context);
#ifdef SIMT_ADDRESS
  __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

const char* file_name(const char* path) {
  const char* slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

// ---- What the stand-ins call ---------------------------------------------------------------------------------------

void fail(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fprintf(stderr, "simt: ");
  if (running != &scheduler) fprintf(stderr, "block (%u, %u, %u): ", block.index.x, block.index.y, block.index.z);
  vfprintf(stderr, format, arguments);
  fprintf(stderr, "\n");
  va_end(arguments);
  _exit(2);
}

void run(const Launch& asked) {
  check(asked);
  launch = asked;
  const bool backwards = getenv("SIMT_BACKWARDS") != nullptr;
#ifdef SIMT_THREAD
  scheduler.thread_sanitizer = __tsan_get_current_fiber();
#endif
  release(&launch_begins);
  const Index& grid = launch.grid;
  const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
  for (uint64_t turn = 0; turn < blocks; ++turn) {
    const uint64_t b = backwards ? blocks - 1 - turn : turn;
    block.index = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                   static_cast<unsigned>(b / grid.x / grid.y)};
    block.dynamic = new_shared(launch.dynamic_shared, 128);
    block.barrier = new_barrier();
    deal_threads(launch.block.x * launch.block.y * launch.block.z, turn, blocks);
    run_block(backwards);
    free_shared();
  }
  acquire(&launch_ends);
}

void allow_dynamic_shared(const void* kernel, int bytes) {
  if (bytes < 0 || static_cast<size_t>(bytes) > kMaxShared)
    fail("a GPU refuses %d bytes of dynamic shared memory; at most %zu", bytes, kMaxShared);
  allowed_dynamic_shared[kernel] = bytes;
}

int multiprocessors() {
  const char* number = getenv("SIMT_MULTIPROCESSORS");
  return number ? atoi(number) : 2;
}

void block_barrier(Site site) {
  Fiber& me = *running;
  void* barrier = block.barrier;
  release(barrier);
  me.wait = Wait::kBlock;
  me.site = site;
  me.mask = 0;
  switch_to(scheduler);
  acquire(barrier);
}

void fence() {
  static char all;
  release(&all);
  acquire(&all);
}

void* dynamic_shared() { return block.dynamic.bytes; }

void* static_shared(const void* object, size_t size, size_t alignment) {
  const Unseen unseen;
  const auto found = block.statics.find(object);
  if (found != block.statics.end()) return found->second.bytes;
  size_t total = size;
  for (const auto& one : block.statics) total += one.second.size;
  if (total > kDefaultShared) fail("%zu bytes of static shared memory; at most %zu", total, kDefaultShared);
  return (block.statics[object] = new_shared(size, alignment)).bytes;
}

void must_be_shared(const void* at, size_t bytes, Site site) {
  const auto holds = [&](const Shared& shared) {
    const char *first = static_cast<const char*>(shared.bytes), *begin = static_cast<const char*>(at);
    return begin >= first && begin + bytes <= first + shared.size;
  };
  bool found = holds(block.dynamic);
  for (const auto& one : block.statics) found = found || holds(one.second);
  if (!found) fail("%s at %s:%d: not in shared memory", site.operation, file_name(site.file), site.line);
}

void issue(const Copy& copy) {
  const Unseen unseen;
  running->open.push_back(copy);
}

void commit() {
  const Unseen unseen;
  running->groups.push_back(std::move(running->open));
  running->open.clear();
}

bool take_due(int allowed, Copy& copy) {
  const Unseen unseen;
  std::deque<std::vector<Copy>>& groups = running->groups;
  while (groups.size() > static_cast<size_t>(allowed)) {
    if (groups.front().empty()) {
      groups.pop_front();
      continue;
    }
    copy = groups.front().back();
    groups.front().pop_back();
    return true;
  }
  return false;
}

}  // namespace simt
