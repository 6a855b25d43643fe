"""Line charts and scatter plots: what goes where in them; `page.html` draws it, in the page's colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

# In units of the drawing, which is scaled to the room there is: on a phone to about 0.85, elsewhere to 1.2.
WIDTH, HEIGHT = 400.0, 250.0
LEFT, RIGHT, TOP, BOTTOM = 68.0, 8.0, 8.0, 40.0
# The page's colours for series; further ones begin again.
N_COLORS = 10
_TICKS = 5
# A number below it is 0 for an axis.
_LEAST = 1e-9


@dataclass(frozen=True)
class Series:
    """Points of one kind.

    Attributes
    ----------
    name : str
        What they are; may be empty where a chart has one series.
    x, y : sequence of float
        Finite, equally many, at least one.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Chart:
    """Series over one pair of axes.

    Attributes
    ----------
    series : sequence of Series
        At least one.
    x_label, y_label : str
        What the axes count.
    alt : str
        The chart in words, for those who do not see it.
    caption : str
        Below it; may be empty.
    is_scatter : bool
        A dot for each point, axes of one scale and each series' name amid its dots; else a line for each series.
    y_top : float, optional
        Where lines are cut off; default: nowhere.
    mark : (float, float, str), optional
        A point with what is to be said of it.
    """

    kind: ClassVar[str] = "chart"

    series: Sequence[Series]
    x_label: str
    y_label: str
    alt: str
    caption: str = ""
    is_scatter: bool = False
    y_top: float | None = None
    mark: tuple[float, float, str] | None = None

    def plot(self) -> Plot:
        """Return where everything is drawn."""
        every_x = [x for series in self.series for x in series.x]
        every_y = [y for series in self.series for y in series.y]
        top = max(every_y) if self.y_top is None else self.y_top
        x_range = _padded(min(every_x), max(every_x), 0.03 if self.is_scatter else 0.0)
        y_range = _padded(min(every_y), top, 0.03 if self.is_scatter else 0.05)
        width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
        if self.is_scatter:
            # Tall enough for one scale, within reason.
            ratio = (y_range[1] - y_range[0]) / (x_range[1] - x_range[0])
            height = width * min(max(ratio, 0.6), 1.0)
            x_range, y_range = _same_scale(x_range, y_range, height / width)
        x, y = _Axis(*x_range, 0.0, width), _Axis(*y_range, height, 0.0)
        shapes = [_shape(series, x, y, self.is_scatter) for series in self.series]
        return Plot(
            width=width,
            height=height,
            x_ticks=x.ticks(),
            y_ticks=y.ticks(),
            shapes=shapes,
            names=[_middle(series, x, y) for series in self.series] if self.is_scatter else [],
            mark=None
            if self.mark is None
            else Place(x.at(self.mark[0]), y.at(self.mark[1]), self.mark[2]),
        )


class Place(NamedTuple):
    """A text at a point of the drawing."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Plot:
    """A chart as it is drawn, in units of the drawing from the upper left corner of its axes.

    Attributes
    ----------
    width, height : float
        Of the axes.
    x_ticks, y_ticks : list of (float, str)
        Where an axis has a number.
    shapes : list of str
        A path for each series, as SVG writes it.
    names : list of Place
        Of a scatter plot's series.
    mark : Place or None
    """

    width: float
    height: float
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    shapes: list[str]
    names: list[Place]
    mark: Place | None


@dataclass(frozen=True)
class _Axis:
    """Numbers from low to high, drawn from first to last."""

    low: float
    high: float
    first: float
    last: float

    def at(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.first + share * (self.last - self.first), 1)

    def ticks(self) -> list[tuple[float, str]]:
        """Multiples of 1, 2 or 5 times a power of ten, at most so many."""
        least = (self.high - self.low) / _TICKS
        power = 10.0 ** math.floor(math.log10(least))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * 0.999)
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        values = [i * step for i in range(first, last + 1)]
        return [(self.at(value), f"{value:,.{decimals}f}".replace("-", "−")) for value in values]


def _padded(low: float, high: float, share: float) -> tuple[float, float]:
    """A range with some room at both ends; one of a single number gets a length."""
    if high <= low:
        length = abs(low) if abs(low) > _LEAST else 1.0
        return low - length / 2, low + length / 2
    room = share * (high - low)
    return low - room, high + room


def _same_scale(
    x: tuple[float, float], y: tuple[float, float], ratio: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Widen one range about its middle until y is ratio times as long as x."""
    length = max(x[1] - x[0], (y[1] - y[0]) / ratio)
    (a, b), (c, d) = x, y
    return (
        ((a + b - length) / 2, (a + b + length) / 2),
        ((c + d - length * ratio) / 2, (c + d + length * ratio) / 2),
    )


def _shape(series: Series, x: _Axis, y: _Axis, is_scatter: bool) -> str:
    points = [f"{x.at(a):g} {y.at(b):g}" for a, b in zip(series.x, series.y, strict=True)]
    # A line of no length has round ends: a dot.
    return "".join(f"M{p}h0" for p in points) if is_scatter else "M" + "L".join(points)


def _middle(series: Series, x: _Axis, y: _Axis) -> Place:
    """A series' name at the median of its points."""
    a, b = (sorted(values)[len(values) // 2] for values in (series.x, series.y))
    return Place(x.at(a), y.at(b), series.name)
