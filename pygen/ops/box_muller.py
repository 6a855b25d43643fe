"""Box-Muller, specified operation by operation: csrc/gaussian/box_muller.h gives the same bits.

A pair of words (x0, x1) becomes r cos(phi), r sin(phi) with r = sqrt(-2 ln u) and phi = 2 pi x1 /
2**32:

- u = (x0 + 1/2) / 2**32. The half of the words that gives u > 1/2 is read as u - 1, which keeps
  small radii exact.
- ln u: exponent e and mantissa in [sqrt 1/2, sqrt 2) by integer operations on the bits of u, then a
  polynomial.
- sin, cos: the quadrant by integer operations on x1, then polynomials on [-pi/4, pi/4].

float32 uses fused multiply-adds. Here their operands are float32 values held in float64: the
product is exact, and rounding the float64 sum to float32 gives the fused result. Rounding twice
could differ from rounding once, but does so for none of the 2**32 words
(tests/ops/test_box_muller.py). float64 uses separately rounded operations, with the polynomials of
FreeBSD's msun (e_log.c, k_sin.c, k_cos.c).
"""

from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor

# -2 ln(1 + t) / t on [sqrt(1/2) - 1, sqrt(2) - 1], relative error 3.1e-8; coefficients of t**8 ..
# t**0.
_LOG32 = (
    -0.1748107522726059,
    0.28619736433029175,
    -0.2983352541923523,
    0.331400603055954,
    -0.39924314618110657,
    0.5000357031822205,
    -0.6666789650917053,
    0.9999998211860657,
    -2.0,
)
_MINUS_2_LN2 = -1.3862943649291992
_SQRT_HALF_BITS32 = 0x3F3504F3

# sin(pi/4 y) / y and cos(pi/4 y) on [-1, 1], errors 2.8e-8 and 4.4e-10; coefficients of y**6 ..
# y**0 and y**8 .. y**0.
_SIN32 = (-3.659276262624189e-05, 0.0024909931235015392, -0.08074582368135452, 0.7853981852531433)
_COS32 = (
    3.4940869682031916e-06,
    -0.00032586869201622903,
    0.015854284167289734,
    -0.3084251284599304,
    1.0,
)

_LOG64 = (
    1.479819860511658591e-01,
    1.531383769920937332e-01,
    1.818357216161805012e-01,
    2.222219843214978396e-01,
    2.857142874366239149e-01,
    3.999999999940941908e-01,
    6.666666666666735130e-01,
)
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_SQRT_HALF_HIGH_BITS64 = 0x3FE6A09E
_SIN64 = (
    1.58969099521155010221e-10,
    -2.50507602534068634195e-08,
    2.75573137070700676789e-06,
    -1.98412698298579493134e-04,
    8.33333333332248946124e-03,
    -1.66666666666666324348e-01,
)
_COS64 = (
    -1.13596475577881948265e-11,
    2.08757232129817482790e-09,
    -2.75573143513906633035e-07,
    2.48015872894767294178e-05,
    -1.38888888888741095749e-03,
    4.16666666666666019037e-02,
)
_QUARTER_PI = 0.785398163397448309616


def _fma(a: Tensor, b: Tensor | float, c: Tensor | float) -> Tensor:
    """a b + c rounded once to float32; operands and result are float32 values held in float64."""
    return (a * b).add_(c).float().double()


def _mul_add(a: Tensor, b: Tensor, c: Tensor | float) -> Tensor:
    return (a * b).add_(c)


def _horner(
    multiply_add: Callable[[Tensor, Tensor, float], Tensor],
    coefficients: tuple[float, ...],
    x: Tensor,
) -> Tensor:
    first = torch.full_like(x, coefficients[0])
    return reduce(lambda p, c: multiply_add(p, x, c), coefficients[1:], first)


def _sqrt64(x: Tensor) -> Tensor:
    """Correctly rounded, as torch's is not on CPUs: a Newton step with the exact x - s**2."""
    s = x.sqrt()
    scaled = s * 134217729.0  # Dekker's split into halves of 26 bits
    high = scaled - (scaled - s)
    low = s - high
    square = s * s
    error = ((high * high - square) + high * low * 2) + low * low
    return s + ((x - square) - error) / (s * 2)


def _radius32(word: Tensor) -> Tensor:
    signed = word - ((word >> 31) << 32)
    centred = (signed.float().double() * 2.0**-32).add_(2.0**-33).float()
    u = torch.where(centred < 0, centred + 1, centred)
    bits = u.view(torch.int32)
    exponent = (bits - _SQRT_HALF_BITS32) >> 23
    mantissa = (bits - (exponent << 23)).view(torch.float32)
    t = torch.where(exponent == 0, centred, mantissa - 1).double()
    minus_2_log = (t * _horner(_fma, _LOG32, t)).float().double()
    return _fma(exponent.double(), _MINUS_2_LN2, minus_2_log).sqrt_().float()


def _radius64(word: Tensor, low: Tensor) -> Tensor:
    signed = word - ((word >> 31) << 32)
    centred = (low.double() + 0.5).mul_(2.0**-64).add_(signed.double() * 2.0**-32)
    u = torch.where(centred < 0, centred + 1, centred)
    bits = u.view(torch.int64)
    exponent = ((bits >> 32) - _SQRT_HALF_HIGH_BITS64) >> 20
    mantissa = (bits - (exponent << 52)).view(torch.float64)
    t = torch.where(exponent == 0, centred, mantissa - 1)
    s = t / (t + 2)
    z = s * s
    half_square = t * t * 0.5
    e = exponent.double()
    tail = s * (half_square + z * _horner(_mul_add, _LOG64, z)) + e * _LN2_LOW
    return _sqrt64(-2 * (e * _LN2_HIGH - ((half_square - tail) - t)))


def _sin_cos32(turn: Tensor) -> tuple[Tensor, Tensor]:
    y = turn.float() * 2.0**-29
    square = (y * y).double()
    return y * _horner(_fma, _SIN32, square).float(), _horner(_fma, _COS32, square).float()


def _sin_cos64(turn: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
    x = (low.double() * 2.0**-32).add_(turn).mul_(2.0**-29).mul_(_QUARTER_PI)
    z = x * x
    half_square = z * 0.5
    rest = z * (z * _horner(_mul_add, _COS64, z))
    w = 1 - half_square
    sin = x * z * _horner(_mul_add, _SIN64, z) + x
    return sin, w + (((1 - w) - half_square) + rest)


def box_muller(
    radius: Tensor, angle: Tensor, low: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Two standard normals from each pair of random words.

    Parameters
    ----------
    radius, angle : Tensor
        int64, each in ``[0, 2**32)``: x0 and x1.
    low : two Tensors, optional
        32 more digits of each; the result is then float64.

    Returns
    -------
    cosine, sine : Tensor
        float32, or float64 with ``low``. Within 2.5e-7 r (1e-15 r) of the exact value.
    """
    quadrant = (angle + 2**29) >> 30
    turn = angle - (quadrant << 30)
    if low is None:
        r = _radius32(radius)
        sin, cos = _sin_cos32(turn)
    else:
        r = _radius64(radius, low[0])
        sin, cos = _sin_cos64(turn, low[1])
    odd = (quadrant & 1) != 0
    cosine, sine = torch.where(odd, sin, cos) * r, torch.where(odd, cos, sin) * r
    return (
        torch.where(((quadrant + 1) & 2) != 0, -cosine, cosine),
        torch.where((quadrant & 2) != 0, -sine, sine),
    )
