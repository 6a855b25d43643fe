// The types that kernels of several families take, by name.
#pragma once

namespace pygen {

enum class Real { kFloat, kDouble, kHalf, kBFloat16 };

}  // namespace pygen
