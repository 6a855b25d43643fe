// Reparameterization on the CPU. CMake compiles this file once per instruction set, PYGEN_ISA naming the namespace. The
// matrices are taken as flat arrays, as the draws are, so that the loops which the compiler vectorises are long
// whatever the rows are.
#include "../gaussian/draws.h"
#include "exponential.h"
#include "reparameterize.h"

namespace pygen::PYGEN_ISA {
namespace {

// Calls each(eps, from, count) for stretches of elements [begin, end), whose first noise is eps[0].
template <class T, class Each>
void stretches(State state, int64_t begin, int64_t end, const Each& each) {
  Draws<T> draws;
  T eps[kDraws];
  for (int64_t first = begin / 4 * 4; first < end; first += kDraws) {
    draw(state, static_cast<uint64_t>(first / 4), draws);
    interleave(draws, eps);
    const int64_t from = first < begin ? begin : first, to = first + kDraws < end ? first + kDraws : end;
    each(eps + (from - first), from, static_cast<int>(to - from));
  }
}

// Calls each(row, column, at, length) for the parts of rows that make up elements [from, from + count).
template <class Each>
void parts(int64_t columns, int64_t from, int count, const Each& each) {
  int64_t row = from / columns, column = from % columns;
  for (int at = 0; at < count; ++row, column = 0) {
    const int length = columns - column < count - at ? static_cast<int>(columns - column) : count - at;
    each(row, column, at, length);
    at += length;
  }
}

// Elements [from, from + count), where they lie or gathered in `buffer`.
template <class T>
const T* read(const Rows<T>& x, int64_t columns, int64_t from, int count, T* buffer) {
  if (x.stride == columns) return x.data + from;
  parts(columns, from, count, [&](int64_t row, int64_t column, int at, int length) {
    std::memcpy(buffer + at, x.data + row * x.stride + column, length * sizeof(T));
  });
  return buffer;
}

// The sum of a row, of which one part comes after another: always in the order of kSums interleaved sums.
template <class T>
struct RowSum {
  static constexpr int kSums = 16;
  T sums[kSums];

  void add(int64_t column, const T* terms, int length) {
    if (column == 0)
      for (int j = 0; j < kSums; ++j) sums[j] = 0;
    int i = 0, lane = static_cast<int>(column % kSums);
    for (; lane != 0 && i < length; ++i, lane = (lane + 1) % kSums) sums[lane] += terms[i];
    T local[kSums];
    for (int j = 0; j < kSums; ++j) local[j] = sums[j];
    for (; i + kSums <= length; i += kSums)
      for (int j = 0; j < kSums; ++j) local[j] += terms[i + j];
    for (int j = 0; j < kSums; ++j) sums[j] = local[j];
    for (int j = 0; i < length; ++i, ++j) sums[j] += terms[i];
  }

  T total() {
    for (int half = kSums / 2; half > 0; half /= 2)
      for (int j = 0; j < half; ++j) sums[j] += sums[j + half];
    return sums[0];
  }
};

template <class T>
void forward_stretch(const T* __restrict__ eps, const T* __restrict__ mu, const T* __restrict__ logvar, int count,
                     T* __restrict__ z, T* __restrict__ terms) {
  for (int i = 0; i < count; ++i) {
    const Spread<T> s = spread(logvar[i]);
    z[i] = s.deviation * eps[i] + mu[i];
    terms[i] = mu[i] * mu[i] + s.excess - logvar[i];
  }
}

template <class T>
void forward(State state, const Reparameterization<T>& a, int64_t begin, int64_t end) {
  T mu_buffer[kDraws], logvar_buffer[kDraws], terms[kDraws];
  RowSum<T> sum;
  stretches<T>(state, begin * a.columns, end * a.columns, [&](const T* eps, int64_t from, int count) {
    const T* mu = read(a.mu, a.columns, from, count, mu_buffer);
    const T* logvar = read(a.logvar, a.columns, from, count, logvar_buffer);
    forward_stretch(eps, mu, logvar, count, a.z + from, terms);
    parts(a.columns, from, count, [&](int64_t row, int64_t column, int at, int length) {
      sum.add(column, terms + at, length);
      if (column + length == a.columns) a.kl[row] = sum.total() * T{0.5};
    });
  });
}

template <class T>
void backward_stretch(const T* __restrict__ eps, const T* __restrict__ mu, const T* __restrict__ logvar,
                      const T* __restrict__ grad_z, const T* __restrict__ grad_kl, int count, T* __restrict__ grad_mu,
                      T* __restrict__ grad_logvar) {
  for (int i = 0; i < count; ++i) {
    const Spread<T> s = spread(logvar[i]);
    grad_mu[i] = grad_kl[i] * mu[i] + grad_z[i];
    grad_logvar[i] = (eps[i] * s.deviation * grad_z[i] + s.excess * grad_kl[i]) * T{0.5};
  }
}

template <class T>
void backward(State state, const ReparameterizationGradient<T>& a, int64_t begin, int64_t end) {
  T mu_buffer[kDraws], logvar_buffer[kDraws], grad_kl[kDraws];
  stretches<T>(state, begin * a.columns, end * a.columns, [&](const T* eps, int64_t from, int count) {
    const T* mu = read(a.mu, a.columns, from, count, mu_buffer);
    const T* logvar = read(a.logvar, a.columns, from, count, logvar_buffer);
    parts(a.columns, from, count, [&](int64_t row, int64_t, int at, int length) {
      for (int i = at; i < at + length; ++i) grad_kl[i] = a.grad_kl[row];
    });
    backward_stretch(eps, mu, logvar, a.grad_z + from, grad_kl, count, a.grad_mu + from, a.grad_logvar + from);
  });
}

}  // namespace

const ReparameterizeKernels<float> kReparameterizeFloat = {forward<float>, backward<float>};
const ReparameterizeKernels<double> kReparameterizeDouble = {forward<double>, backward<double>};

}  // namespace pygen::PYGEN_ISA
