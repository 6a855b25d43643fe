"""What the tests of kernels in bfloat16 share."""

import torch
from torch import Tensor
from torch.nn import functional as F

# In the order of `pygen.ops.strided_conv.ACTIVATIONS`.
ACTIVATIONS = (
    lambda x: x,
    F.relu,
    lambda x: F.leaky_relu(x, 0.25),
    torch.tanh,
    torch.sigmoid,
)
# bfloat16 keeps 8 digits; sums in float cost little besides.
ROUNDING = 1.05 * 2**-8


def assert_rounded(found: Tensor, exact: Tensor, *what: object) -> None:
    """Each to bfloat16, but for what sums in float lose in the scale of the result."""
    allowed = ROUNDING * exact.abs() + 2e-6 * exact.abs().max()
    assert ((found - exact).abs() <= allowed).all(), what
