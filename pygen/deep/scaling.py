"""Between the user's numbers and those the networks see, [0, 1]."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Scaling:
    """An interval of numbers of one dtype, mapped to [0, 1] and back.

    Parameters
    ----------
    low, high : float
        What becomes 0 and 1.
    dtype : torch.dtype
        Of the user's numbers. Integers come back rounded.
    """

    low: float
    high: float
    dtype: torch.dtype

    @classmethod
    def learned(cls, x: Tensor, value_range: Any = None, whole: bool = True) -> "Scaling":
        """The scaling that data asks for.

        uint8 is 0 to 255 and bool False to True; numbers in [0, 1] or [-1, 1] mean that interval; others lie between
        their smallest and largest.

        Parameters
        ----------
        x : Tensor
            The data, finite.
        value_range : (float, float), optional
            The interval, where it is known.
        whole : bool
            Whether x is all of the data, so that its smallest and largest are those.

        Raises
        ------
        ValueError
            If the interval is not one, does not hold the data, or cannot be known.
        """
        if value_range is None and x.dtype == torch.uint8:
            return cls(0.0, 255.0, x.dtype)
        numbers = x.to(torch.uint8) if x.dtype == torch.bool else x
        smallest, largest = (float(bound) for bound in numbers.aminmax())
        if value_range is not None:
            low, high = _interval(value_range)
            if smallest < low or largest > high:
                raise ValueError(
                    f"value_range is ({low:g}, {high:g}), but X has values from {smallest:g} to {largest:g}."
                )
        elif smallest >= 0 and largest <= 1:
            low, high = 0.0, 1.0
        elif smallest >= -1 and largest <= 1:
            low, high = -1.0, 1.0
        elif not whole:
            raise ValueError(
                f"The first values of X go from {smallest:g} to {largest:g}, neither [0, 1] nor [-1, 1] nor uint8;"
                " the interval of a Dataset or DataLoader cannot be guessed from them: give value_range=(low, high)."
            )
        else:
            low, high = smallest, largest if largest > smallest else smallest + 1
        return cls(low, high, x.dtype)

    @classmethod
    def of(cls, value_range: Any) -> "Scaling":
        """The scaling that :meth:`range` describes."""
        if not isinstance(value_range, Tensor):
            value_range = torch.from_numpy(np.asarray(value_range))
        low, high = value_range.tolist()
        return cls(float(low), float(high), value_range.dtype)

    def range(self) -> Tensor:
        """``[2]``, the interval in the dtype of the data."""
        return torch.tensor([self.low, self.high], dtype=torch.float64).to(self.dtype)

    def to_unit(self, x: Tensor) -> Tensor:
        """float32 in [0, 1] of the user's numbers."""
        x = x.to(torch.float32)
        if self.low:
            x = x - self.low
        width = self.high - self.low
        return x if width == 1 else x / width

    def from_unit(self, x: Tensor) -> Tensor:
        """The user's numbers of values in [0, 1]."""
        low, high = self.low, self.high
        if self.dtype.is_floating_point:
            return (x * (high - low) + low).to(self.dtype)
        return (x.double() * (high - low) + low).round().clamp(low, high).to(self.dtype)


def _interval(value_range: Any) -> tuple[float, float]:
    try:
        low, high = (float(bound) for bound in value_range)
    except (TypeError, ValueError):
        low = high = float("nan")
    if not (low < high and np.isfinite([low, high]).all()):
        raise ValueError(
            f"value_range must be (low, high), two finite numbers with low < high; got {value_range!r}."
        )
    return low, high
