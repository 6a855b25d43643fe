// What the stand-ins of this folder ask of ../runtime.cpp, which runs every CUDA thread as a fiber.
#pragma once
#include <cstddef>
#include <cstdint>

namespace simt {

struct Index {
  unsigned x, y, z;
};

// Of the thread that runs now.
struct Coordinates {
  Index thread, block, block_dim, grid_dim;
  unsigned lane;
};
extern Coordinates coordinates;

// An operation that threads wait in, and where it stands.
struct Site {
  const char* operation;
  const char* file;
  int line;
};

[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// Runs `thread(kernel_and_arguments)` for every thread of the grid, one block at a time.
struct Launch {
  Index grid, block;
  size_t dynamic_shared;
  const void* kernel;
  void (*thread)(const void*);
  const void* kernel_and_arguments;
};
void run(const Launch& launch);
void allow_dynamic_shared(const void* kernel, int bytes);
int multiprocessors();

void block_barrier(Site site);
void fence();

// Collectives of a warp. The last lane to come computes what all of them get. A shuffle from a lane that takes no part
// gives all bits set, a NaN in every floating-point type.
void warp_barrier(unsigned mask, Site site);
uint64_t shuffle(unsigned mask, uint64_t value, unsigned source, Site site);
unsigned ballot(unsigned mask, bool vote, Site site);

// Row addresses of all lanes of the whole warp.
void gather(const void* mine, const void* (&all)[32], Site site);
enum class Multiplicand { kBFloat16, kHalf, kTFloat32 };
void matrix_product(Multiplicand type, float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Site site);
void matrix_product(double (&c)[2], double a, double b, Site site);

// Bytes of the block, all bits set when it starts. `object` tells one static object from another.
void* dynamic_shared();
void* static_shared(const void* object, size_t size, size_t alignment);
void must_be_shared(const void* at, size_t bytes, Site site);

// The copies a thread has issued: in groups, the oldest first.
struct Copy {
  void* to;
  const void* from;
  int bytes;
  bool valid;
};
void issue(const Copy& copy);
void commit();
// Takes one copy of all but the `allowed` newest groups, while there is one.
bool take_due(int allowed, Copy& copy);

}  // namespace simt
