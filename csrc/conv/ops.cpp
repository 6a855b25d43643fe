// Binds the kernels of strided convolutions to the operators that pygen/ops defines.
#include <optional>

#include "../isa.h"
#include "../large_pages.h"
#include "pictures.h"

namespace pygen {
namespace {

Tensor act_cpu(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, bool transposed,
               int64_t activation, double slope) {
  const Layer layer(x, weight, transposed);
  Tensor y = layer.result(x.scalar_type());
  dispatch(x.scalar_type(), [&](auto type) {
    using T = decltype(type);
    const Tensor in = pictures<T>(x), kernel = numbers<T>(weight);
    const Tensor summand = bias ? numbers<T>(*bias, MemoryFormat::Contiguous) : kernel;
    Result<T> out(y);
    Correlation<T> a = layer.correlation<T>(transposed, in, out.data());
    a.bias = bias ? data<T>(summand) : nullptr;
    a.activation = activation;
    a.slope = static_cast<T>(slope);
    correlate(a, layer.weight<const T>(kernel));
    out.write();
  });
  return y;
}

}  // namespace
}  // namespace pygen

STABLE_TORCH_LIBRARY_IMPL(pygen, CPU, m) { m.impl("strided_conv_act", TORCH_BOX(&pygen::act_cpu)); }
