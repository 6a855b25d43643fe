"""Write the tables of README.md and docs/ from the results that were kept.

tables.py               write them
tables.py --check       say which pages are not what the results give; exit status 1 if any is

A table stands between `<!-- bench: NAME -->` and `<!-- /bench -->`, or a plot that plots.py draws; names are those of
TABLES and PLOTS.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from compare import RESULTS, line

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# What pytest selects a table's cases by, for the command below it, and what begins their names.
TABLES = {
    "summary": (
        "",
        [
            r"NaiveBayes fit, 256 levels",
            r"EM iteration, diag K=10, 20k x 784 float32$",
            r"EM iteration, diag K=100, 20k x 784 float32$",
            r"EM iteration, full K=10, 8k x 784 float32$",
            r"k-means from a given start, K=100",
            r"sample, diag K=10, 100k x 784 float32$",
            r"sample, full K=10, 100k x 784 float32$",
            r"conv, inference of DCGAN's generator, 256 x 1x32x32, contiguous_format$",
            r"conv, inference of DCGAN's generator, .* beside float32$",
            r"conv, training step of DCGAN, 64 x 1x32x32, contiguous_format$",
            r"conv, training step of DCGAN, .* beside float32$",
            r"a step of DCGAN, 128 x 3x32x32$",
        ],
    ),
    "mixtures": ("mixture", ["EM iteration", "score_samples", "k-means", "10 fits"]),
    "sampling": ("'sampling or reparameterize'", ["normal", "sample", "reparameterize"]),
    "bayes": ("bench_bayes", ["NaiveBayes", "GaussianBayes"]),
    "convolutions": ("bench_conv", ["conv"]),
    "training": ("bench_deep", ["a step of"]),
}
# What begins the things that a plot shows, its file, and what it shows in words.
PLOTS = {
    "growth of EM": ("EM iteration", "scaling-em.svg", "an EM iteration"),
    "growth of sampling": ("sample", "scaling-sample.svg", "sampling"),
    "growth of a generator": ("generator", "scaling-generator.svg", "DCGAN's generator, inference"),
}
_TABLE = re.compile(r"(<!-- bench: (.*?) -->\n).*?(<!-- /bench -->)", re.DOTALL)


def kept() -> list[dict[str, Any]]:
    """All results that compare.py keeps, by machine."""
    results = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    return [result for result in results if "facts" in result]


def table(name: str, results: list[dict[str, Any]]) -> str:
    """One after the other for each machine; the summary of the one that most was measured on."""
    selected, patterns = TABLES[name]
    command = "python bench/compare.py" + (f" -k {selected}" if selected else "")
    parts = []
    if name == "summary":
        results = sorted(results, key=lambda result: len(result["cases"]))[-1:]
    for result in results:
        cases = [
            case
            for pattern in patterns
            for key, case in result["cases"].items()
            if re.match(pattern, key)
        ]
        if cases:
            parts.append(_rows(cases) + _caption(result["facts"], cases, command))
    return "\n".join(parts) or f"No results are kept; `{command}` measures them.\n"


def plot(name: str, results: list[dict[str, Any]]) -> str:
    """The picture's link, where there is something to draw."""
    group, file, words = PLOTS[name]
    command = "python bench/compare.py -k bench_scaling"
    shown = [case.get("scaling", {}) for result in results for case in result["cases"].values()]
    if not any(scaling.get("what", "").startswith(group) for scaling in shown):
        return f"No results are kept; `{command}` measures them.\n"
    return f"![Seconds of {words}, as sizes grow](figures/{file})\n\n`{command}` measures it.\n"


def _rows(cases: list[dict[str, Any]]) -> str:
    lines = ["| | pygen | peer | | ratio | quartiles |", "|---|--:|--:|---|--:|--:|"]
    for case in cases:
        name, ours, peer, ratio, spread, *_ = line(case)
        ratio = f"{float(ratio[:-1]):.1f}" if len(ratio) > 4 else ratio[:-1]
        lines.append(f"| {name} | {ours} | {peer} | {case['peer_name']} | {ratio} | {spread} |")
    return "\n".join(lines) + "\n"


def _caption(facts: dict[str, Any], cases: list[dict[str, Any]], command: str) -> str:
    dates = sorted({case["date"] for case in cases})
    span = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return (
        f"\n{facts['CPU']}, {facts['cores']} cores ({facts['instructions']}); torch"
        f" {facts['torch']}, scikit-learn {facts['scikit-learn']}, numpy {facts['numpy']}; {span}."
        f" Times are medians; above 1, pygen is faster. `{command}` measures them.\n"
    )


def written(text: str, results: list[dict[str, Any]]) -> str:
    """A page with its tables as the results give them."""

    def fill(found: re.Match[str]) -> str:
        if found[2] not in TABLES | PLOTS:
            expected = ", ".join([*TABLES, *PLOTS])
            raise SystemExit(f"no table {found[2]!r}: expected one of {expected}")
        filled = table if found[2] in TABLES else plot
        return f"{found[1]}{filled(found[2], results)}{found[3]}"

    return _TABLE.sub(fill, text)


def main() -> int:
    results = kept()
    stale = []
    for page in PAGES:
        old = page.read_text()
        new = written(old, results)
        if new != old:
            stale.append(page.relative_to(ROOT))
            if "--check" not in sys.argv[1:]:
                page.write_text(new)
    for page in stale:
        print(page)
    return int("--check" in sys.argv[1:] and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
