"""Draw how time grows, from the results that were kept: python bench/plots.py [FOLDER], default docs/figures.

Needs matplotlib: pip install "pygen[plots]". Lines are medians, bands quartiles; both axes are logarithmic.
"""

import sys
from collections import defaultdict
from pathlib import Path
from typing import Any, TypeAlias

import matplotlib as mpl
from compare import quartiles
from matplotlib import pyplot
from tables import PLOTS, ROOT, kept

mpl.use("svg")

AXES = {"N": "rows", "D": "features", "K": "components", "batch": "pictures"}
COLOURS = {"diag": "#3949ab", "full": "#c2410c", "": "#3949ab"}
Points: TypeAlias = list[tuple[int, tuple[float, float, float], tuple[float, float, float]]]
# (what, axis): its points.
Lines: TypeAlias = dict[tuple[str, str], Points]


def lines_of(result: dict[str, Any]) -> tuple[Lines, dict[str, str]]:
    """Points by what is timed and what grows, and the peer of each thing timed."""
    lines, peers = defaultdict(list), {}
    for case in result["cases"].values():
        if "scaling" in case:
            what, axis, value = (case["scaling"][key] for key in ("what", "axis", "value"))
            lines[what, axis].append((value, quartiles(case["ours"]), quartiles(case["peer"])))
            peers[what.partition(",")[0]] = case["peer_name"]
    return {key: sorted(points) for key, points in lines.items()}, peers


def draw(group: str, lines: Lines, peer_name: str, facts: dict[str, Any], path: Path) -> None:
    """A panel for each thing that grows; pygen's lines are whole, its peer's dashed."""
    axes = [axis for axis in AXES if any(key[1] == axis for key in lines)]
    figure, panels = pyplot.subplots(
        1, len(axes), figsize=(0.6 + 2.9 * len(axes), 3.4), sharey=True, squeeze=False
    )
    for panel, axis in zip(panels[0], axes, strict=True):
        for (what, of), points in lines.items():
            if of != axis:
                continue
            kind = what.partition(", ")[2]
            values = [value for value, *_ in points]
            for name, style, times in (
                ("pygen", "-", [ours for _, ours, _ in points]),
                (peer_name, "--", [peer for _, _, peer in points]),
            ):
                low, middle, high = zip(*times, strict=True)
                label = f"{name}, {kind}" if kind else name
                panel.plot(
                    values, middle, style, color=COLOURS[kind], marker=".", lw=1.4, label=label
                )
                panel.fill_between(values, low, high, color=COLOURS[kind], alpha=0.15, lw=0)
        ticks = sorted(
            {value for key, points in lines.items() if key[1] == axis for value, *_ in points}
        )
        panel.set(xscale="log", yscale="log", xlabel=AXES[axis])
        panel.set_xticks(ticks, labels=[f"{tick:,}" for tick in ticks])
        panel.xaxis.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("seconds")
    panels[0][0].legend(fontsize=7, frameon=False)
    figure.suptitle(f"{group}: {facts['CPU']}, {facts['cores']} cores", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    print(path)


def main() -> None:
    folder = Path(sys.argv[1]) if sys.argv[1:] else ROOT / "docs" / "figures"
    # The same results give the same bytes.
    mpl.rcParams.update({"svg.hashsalt": "pygen", "svg.fonttype": "path", "font.size": 8})
    for result in kept():
        lines, peers = lines_of(result)
        for group, file, _ in PLOTS.values():
            own = {key: points for key, points in lines.items() if key[0].startswith(group)}
            if own:
                draw(group, own, peers[group], result["facts"], folder / file)


if __name__ == "__main__":
    main()
