"""Charts: that numbers are drawn where they belong."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pygen.report import Chart, Series
from pygen.report.chart import WIDTH, Plot


def drawn(shape: str) -> list[tuple[float, float]]:
    """The points of a path."""
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([-\d.e]+) ([-\d.e]+)", shape)]


def value(ticks: list[tuple[float, str]], place: float) -> float:
    """What an axis says of a place, by its first and last number."""
    (a, first), (b, last) = ticks[0], ticks[-1]
    low, high = (float(text.replace(",", "").replace("−", "-")) for text in (first, last))
    return low + (place - a) / (b - a) * (high - low)


def test_a_line_is_where_its_axes_say() -> None:
    x, y = [50, 1000, 4000], [3.5, -1.25, 0.5]
    plot = Chart([Series("", x, y)], "x", "y", "alt").plot()
    for (left, top), *expected in zip(drawn(plot.shapes[0]), x, y, strict=True):
        assert [value(plot.x_ticks, left), value(plot.y_ticks, top)] == pytest.approx(
            expected, abs=2
        )
        assert value(plot.y_ticks, top) == pytest.approx(expected[1], abs=0.01)
        assert 0 <= left <= plot.width
        assert 0 <= top <= plot.height
    # Larger is higher.
    assert drawn(plot.shapes[0])[0][1] < drawn(plot.shapes[0])[2][1]


def test_dots_have_one_scale() -> None:
    x, y = [0.0, 4.0, 1.0], [10.0, 10.5, 9.5]
    plot = Chart([Series("a", x, y)], "x", "y", "alt", is_scatter=True).plot()
    points = drawn(plot.shapes[0])
    for (left, top), *expected in zip(points, x, y, strict=True):
        assert value(plot.x_ticks, left) == pytest.approx(expected[0], abs=0.02)
        assert value(plot.y_ticks, top) == pytest.approx(expected[1], abs=0.02)
    across, up = points[1][0] - points[0][0], points[0][1] - points[1][1]
    assert across / 4 == pytest.approx(up / 0.5, rel=0.01)
    # Its name is at the medians.
    (name,) = plot.names
    assert (name.x, name.y, name.text) == (points[2][0], points[0][1], "a")


def test_the_top_is_cut_and_a_mark_stays() -> None:
    series = [Series("", [0, 1, 2], [100.0, 2.0, 1.0])]
    whole = Chart(series, "x", "y", "alt").plot()
    cut = Chart(series, "x", "y", "alt", y_top=2.0, mark=(2, 1.0, "best")).plot()
    assert drawn(whole.shapes[0])[0][1] > 0
    assert drawn(cut.shapes[0])[0][1] < 0
    assert cut.mark is not None
    assert (cut.mark.x, cut.mark.y) == drawn(cut.shapes[0])[2]


@example(5e-324, 0.0, True)
@given(
    st.floats(-1e6, 1e6),
    st.floats(1e-6, 1e6) | st.just(0.0),
    st.booleans(),
)
def test_axes_have_few_round_numbers(low: float, length: float, is_scatter: bool) -> None:
    series = Series("", [low, low + length], [low + length, low])
    plot: Plot = Chart([series], "x", "y", "alt", is_scatter=is_scatter).plot()
    for ticks, size in ((plot.x_ticks, plot.width), (plot.y_ticks, plot.height)):
        places, texts = zip(*ticks, strict=True)
        assert 1 <= len(ticks) <= 6
        assert all(-0.2 <= place <= size + 0.2 for place in places)
        assert len(set(texts)) == len(texts)
    assert plot.width < WIDTH
    assert all(0 <= x <= plot.width for x, _ in drawn(plot.shapes[0]))
