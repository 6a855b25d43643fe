// Products of matrices of bfloat16, summed in float, by the processor's matrix unit: everything is local to the file
// that includes this, as in lanes.h. Without that unit it is the same product by plain vectors, for tests.
#pragma once
#include "bfloat16.h"
#include "tile.h"

namespace pygen::PYGEN_ISA {
namespace {

// A product [rows <= kSide, kSide] is a sum of steps, each of kSide columns of the left matrix and rows of the right
// one. The left part lies by row; the right one, [halves of the columns, pairs of rows, columns, rows of the pair],
// whole.
constexpr int64_t kSide = 32, kHalf = kSide / 2;
struct Step {
  const BFloat16 *left, *right;
};

#ifdef __AMX_BF16__
// Keeps the unit set up for products of as many rows.
class Products {
 public:
  Products(int64_t rows, int64_t left_stride) : stride_(left_stride * sizeof(BFloat16)), is_tall_(rows > kHalf) {
    struct alignas(64) {
      uint8_t palette = 1, start = 0, reserved[14] = {};
      uint16_t bytes[16] = {};
      uint8_t rows[16] = {};
    } tiles;
    const uint8_t upper = static_cast<uint8_t>(least(rows, kHalf)), lower = static_cast<uint8_t>(rows - upper);
    // Sums above and below, left and right; left parts above and below; right parts.
    const uint8_t heights[] = {upper, upper, lower, lower, upper, lower, kHalf, kHalf};
    for (int i = 0; i < 8; ++i)
      if (heights[i] > 0) tiles.rows[i] = heights[i], tiles.bytes[i] = 64;
    stored(&tiles);
    _tile_loadconfig(&tiles);
  }
  Products(const Products&) = delete;
  ~Products() { _tile_release(); }

  // out [rows, kSide], or what is added to it.
  void run(const Step* steps, int64_t n, bool adds, float* out) const {
    stored(steps);
    is_tall_ ? run_halves<2>(steps, n, adds, out) : run_halves<1>(steps, n, adds, out);
  }

 private:
  // GCC's intrinsics do not say what memory they read: stores to it must not be put off, or left out.
  static void stored(const void* memory) { asm volatile("" : : "r"(memory) : "memory"); }

  template <int kHalves>
  void run_halves(const Step* steps, int64_t n, bool adds, float* out) const {
    constexpr int64_t kRow = kSide * sizeof(float), kRightRow = kSide * sizeof(BFloat16);
    float* lower = out + kHalf * kSide;
    _tile_zero(0);
    _tile_zero(1);
    if constexpr (kHalves == 2) {
      _tile_zero(2);
      _tile_zero(3);
    }
    if (adds) {
      _tile_loadd(0, out, kRow);
      _tile_loadd(1, out + kHalf, kRow);
      if constexpr (kHalves == 2) {
        _tile_loadd(2, lower, kRow);
        _tile_loadd(3, lower + kHalf, kRow);
      }
    }
    for (const Step* step = steps; step < steps + n; ++step) {
      _tile_loadd(4, step->left, stride_);
      _tile_loadd(6, step->right, kRightRow);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, step->right + kHalf * kSide, kRightRow);
      _tile_dpbf16ps(1, 4, 7);
      if constexpr (kHalves == 2) {
        _tile_loadd(5, reinterpret_cast<const char*>(step->left) + kHalf * stride_, stride_);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
    }
    _tile_stored(0, out, kRow);
    _tile_stored(1, out + kHalf, kRow);
    if constexpr (kHalves == 2) {
      _tile_stored(2, lower, kRow);
      _tile_stored(3, lower + kHalf, kRow);
    }
  }

  int64_t stride_;
  bool is_tall_;
};
#else
class Products {
 public:
  Products(int64_t rows, int64_t left_stride) : rows_(rows), stride_(left_stride) {}

  void run(const Step* steps, int64_t n, bool adds, float* out) const {
    for (int64_t row = 0; row < rows_; ++row, out += kSide) {
      if (!adds) std::memset(out, 0, kSide * sizeof(float));
      for (const Step* step = steps; step < steps + n; ++step)
        for (int64_t k = 0; k < kSide; ++k)
          for (int64_t j = 0; j < kSide; ++j)
            out[j] += number(step->left[row * stride_ + k]) *
                      number(step->right[((j / kHalf * kHalf + k / 2) * kHalf + j % kHalf) * 2 + k % 2]);
    }
  }

 private:
  int64_t rows_, stride_;
};
#endif

// Two rows of kHalf numbers by turns, as a right part has them.
inline void pair_up(const BFloat16* even, const BFloat16* odd, BFloat16* to) {
  for (int64_t i = 0; i < kHalf; ++i) to[2 * i] = even[i], to[2 * i + 1] = odd[i];
}

// to [kHalf, kHalf] = from [kHalf, kHalf] transposed, of pairs of numbers.
inline void transpose_pairs(const BFloat16* from, BFloat16* to) {
  // Moved as if they were numbers of float.
  for (int64_t row = 0; row < kHalf; row += kLanes<float>)
    for (int64_t column = 0; column < kHalf; column += kLanes<float>)
      transpose(reinterpret_cast<const float*>(from) + row * kHalf + column, kHalf,
                reinterpret_cast<float*>(to) + column * kHalf + row, kHalf);
}

}  // namespace
}  // namespace pygen::PYGEN_ISA
