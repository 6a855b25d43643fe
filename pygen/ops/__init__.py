"""Operators: mathematics in plain PyTorch, and faster kernels where the compiled module is there.

``native`` is the compiled module ``pygen._C`` or None; without it every operator still works,
slower, and ``native_error`` says why it is missing.
"""

from pygen.ops.compiled import native, native_error
from pygen.ops.conv import conv_bn_act, conv_transpose_bn_act
from pygen.ops.gaussian import normal, uniform
from pygen.ops.mixture import em_statistics, grouped_statistics, log_density, responsibilities
from pygen.ops.moments import count_categories
from pygen.ops.reparameterize import reparameterize
from pygen.ops.sampling import pick, sample_gaussians

__all__ = [
    "conv_bn_act",
    "conv_transpose_bn_act",
    "count_categories",
    "em_statistics",
    "grouped_statistics",
    "log_density",
    "native",
    "native_error",
    "normal",
    "pick",
    "reparameterize",
    "responsibilities",
    "sample_gaussians",
    "uniform",
]
