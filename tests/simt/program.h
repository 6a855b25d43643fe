// The main function of a program that harness.py builds: reads a call from standard input, makes it, writes the
// buffers.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "simt.h"

namespace simt {

// Memory as cudaMalloc gives it, aligned to 256 bytes. AddressSanitizer sees its exact size, elsewhere guards do.
struct Buffer {
#ifdef __SANITIZE_ADDRESS__
  static constexpr size_t kGuard = 0;
#else
  static constexpr size_t kGuard = 256;
#endif
  static constexpr unsigned char kPattern = 0xA5;
  size_t size = 0;
  unsigned char* start = nullptr;

  explicit Buffer(size_t bytes) : size(bytes) {
    void* memory = nullptr;
    if (posix_memalign(&memory, 256, size + 2 * kGuard) != 0) fail("no memory for a buffer of %zu bytes", size);
    memset(memory, kPattern, size + 2 * kGuard);
    start = static_cast<unsigned char*>(memory) + kGuard;
  }
  void check_guards(size_t number) const {
    for (size_t i = 0; i < kGuard; ++i)
      if (start[-1 - static_cast<ptrdiff_t>(i)] != kPattern || start[size + i] != kPattern)
        fail("guard: a write outside buffer %zu, within %zu bytes of it", number, i + 1);
  }
};

struct Argument {
  char kind = 0;  // b: buffer, i: integer, f: real number, n: null
  int64_t integer = 0;
  double real = 0;
  void* pointer = nullptr;
};

template <class T>
T convert(const Argument& argument) {
  if constexpr (std::is_pointer_v<T>) {
    if (argument.kind != 'b' && argument.kind != 'n') fail("a pointer parameter was given a number");
    return static_cast<T>(argument.pointer);
  } else if constexpr (std::is_floating_point_v<T>) {
    if (argument.kind != 'f') fail("a floating-point parameter was not given a float");
    return static_cast<T>(argument.real);
  } else {
    if (argument.kind != 'i') fail("an integer parameter was not given an int");
    return static_cast<T>(argument.integer);
  }
}

template <auto function>
struct Function;
template <class... Parameters, const char* (*function)(Parameters...)>
struct Function<function> {
  static const char* call(const std::vector<Argument>& arguments) {
    if (arguments.size() != sizeof...(Parameters))
      fail("%zu arguments for a function of %zu", arguments.size(), sizeof...(Parameters));
    return call(arguments, std::index_sequence_for<Parameters...>());
  }

 private:
  template <size_t... I>
  static const char* call(const std::vector<Argument>& arguments, std::index_sequence<I...>) {
    return function(convert<Parameters>(arguments[I])...);
  }
};

inline void read(void* to, size_t bytes) {
  if (fread(to, 1, bytes, stdin) != bytes) fail("the call ends too early");
}

template <class T>
T read() {
  T value;
  read(&value, sizeof value);
  return value;
}

using Functions = std::map<std::string, const char* (*)(const std::vector<Argument>&)>;

inline int main(const Functions& functions) {
  std::string name(read<uint64_t>(), ' ');
  read(&name[0], name.size());
  std::vector<Argument> arguments(read<uint64_t>());
  std::vector<Buffer> buffers;
  for (Argument& argument : arguments) {
    argument.kind = read<char>();
    if (argument.kind == 'i') argument.integer = read<int64_t>();
    if (argument.kind == 'f') argument.real = read<double>();
    if (argument.kind == 'b') {
      buffers.emplace_back(read<uint64_t>());
      argument.pointer = buffers.back().start;
      read(argument.pointer, buffers.back().size);
    }
  }
  const char* error = functions.at(name)(arguments);
  if (error != nullptr) fail("error: %s", error);
  for (size_t i = 0; i < buffers.size(); ++i) {
    buffers[i].check_guards(i);
    fwrite(buffers[i].start, 1, buffers[i].size, stdout);
  }
  return 0;
}

}  // namespace simt
