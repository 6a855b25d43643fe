"""What `pygen evaluate` found out about a run: kept beside the run, read again, laid out as a table."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from pygen.cli.runs import EVALUATION, model_digest
from pygen.files import write_file
from pygen.metrics import Estimate
from pygen.report import Table

FORMAT = 1
_LIKELIHOODS = {"log_likelihood", "elbo", "iwae"}
# Images of either kind among which neighbours are sought and kernels computed, at most: their time grows with the
# square.
NEAR = 2000
# Images whose likelihoods need many codes, that are tested by permutations, whose nearest are sought, at most.
FEW = 1000
N_CODES, N_NEIGHBOURS, N_PERMUTATIONS = 50, 5, 200

FLOOR, BASELINE = "other real images", "independent pixels"


class Measure(NamedTuple):
    """How a figure is shown: heading, decimals, which way is better ("" if neither); and where it lies."""

    heading: str
    decimals: int
    better: str
    least: float = -math.inf
    most: float = math.inf


# By the names of `Evaluation.figures`, in the order of the table's columns.
MEASURES = {
    "frechet_distance": Measure("Fréchet", 1, "↓", 0),
    "kernel_distance": Measure("kernel", 3, "↓"),
    "precision": Measure("precision", 2, "↑", 0, 1),
    "density": Measure("density", 2, "↑", 0),
    "recall": Measure("recall", 2, "↑", 0, 1),
    "coverage": Measure("coverage", 2, "↑", 0, 1),
    "two_sample_accuracy": Measure("two-sample", 2, "↓", 0, 1),
    "mmd_p_value": Measure("MMD p", 3, "↑", 0, 1),
    "class_entropy": Measure("entropy", 2, "↑", 0),
    "smallest_share": Measure("rarest class", 3, "↑", 0, 1),
    "memorisation": Measure("memorised", 2, "", 0, 1),
    "log_likelihood": Measure("log p(x)", 1, "↑"),
    "elbo": Measure("ELBO", 1, "↑"),
    "iwae": Measure("IWAE", 1, "↑"),
}

# What a reader has to know of the figures a table holds.
_LEGEND = (
    (
        ("frechet_distance", "kernel_distance"),
        "Fréchet: distance of the normal distributions fitted to the features of both (with "
        "Inception features the FID; Heusel et al., 2017); kernel: squared maximum mean discrepancy "
        f"with KID's kernel (Binkowski et al., 2018), of at most {NEAR:,} of either, 0 on average where "
        "both are of one distribution.",
    ),
    (
        ("precision",),
        "Precision and density say how real samples are, recall and coverage how much of the real "
        "variety they have (Kynkäänniemi et al., 2019; Naeem et al., 2020; "
        f"{N_NEIGHBOURS} neighbours, of at most {NEAR:,} of either). Two-sample: how often the "
        "nearest neighbour tells real from made; 0.5 is chance.",
    ),
    (
        ("mmd_p_value",),
        "MMD p: how often chance alone gives as large a difference (Gretton et al., 2012; "
        f"{N_PERMUTATIONS} permutations of at most {FEW:,} of either); below 0.05 the test sees "
        "that samples are not real.",
    ),
    (
        ("class_entropy",),
        "Entropy of the classes made, in nats, and the share of the rarest.",
    ),
    (
        ("memorisation",),
        "Memorised: how often a sample is nearer to the training images, in pixels, than a held-out "
        "image is (Meehan et al., 2020). 0.5 is as it should be, near 1 are copies, or blurs, which "
        "are near to everything.",
    ),
    (
        ("log_likelihood", "elbo"),
        "Log p(x), ELBO and IWAE in nats per image of the reference; the last two, of at most "
        f"{FEW:,} images, are lower bounds, IWAE of {N_CODES} codes the tighter one.",
    ),
)


@dataclass(frozen=True)
class Evaluation:
    """How good a model's samples are, and beside what.

    Attributes
    ----------
    folder : Path
        The run.
    title : str
        The model.
    data : str
        As `pygen fit` was given it.
    data_sha256 : str
        Of the images the model was fitted to; runs of one table have the same.
    split : {"test", "train"}
        Whether the reference is of images that no model has seen, or of those all were fitted to.
    reference, others : str
        The reference, and the other real images that are the floor, in words.
    n_reference, n_samples : int
        Images of the reference, and images that the model made.
    features : str
        What stands for an image, in words.
    accuracy : float or None
        Of the classifier whose features they are, on held-out images; None of others.
    seed : int
        Of samples, resamples and the classifier.
    pixels : str
        What log-likelihoods are of, in words; only those of the same are comparable.
    figures, floor, baseline : dict of str to Estimate
        By the names of `MEASURES`: of the model, of other real images, of independent pixels. What a model has no
        figure for is left out.
    """

    folder: Path
    title: str
    data: str
    data_sha256: str
    split: str
    reference: str
    others: str
    n_reference: int
    n_samples: int
    features: str
    accuracy: float | None
    seed: int
    pixels: str
    figures: dict[str, Estimate]
    floor: dict[str, Estimate]
    baseline: dict[str, Estimate]


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """Return it as JSON has it; each figure is value, low, high, and an infinite one, which JSON lacks, text."""
    content = asdict(replace(evaluation, folder=Path()))
    for name in ("figures", "floor", "baseline"):
        content[name] = {
            key: {**found._asdict(), "value": _text_if_infinite(found.value)}
            for key, found in getattr(evaluation, name).items()
        }
    content["folder"] = str(evaluation.folder)
    return content


def write(evaluation: Evaluation) -> None:
    """Keep an evaluation in its run's folder, whole or not at all."""
    content = {"format": FORMAT, "config_sha256": model_digest(evaluation.folder)}
    content |= as_json(evaluation)
    del content["folder"]
    data = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
    write_file(evaluation.folder / EVALUATION, data.encode())


def read(folder: Path) -> Evaluation | None:
    """Read the evaluation of a run; None if there is none, or it is of an earlier model in the folder.

    Raises
    ------
    ValueError
        If the file is damaged.
    """
    path = folder / EVALUATION
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes().decode())
        if content.pop("format") != FORMAT:
            return None
        of = content.pop("config_sha256")
        for name in ("figures", "floor", "baseline"):
            content[name] = {key: _estimate(**found) for key, found in content[name].items()}
        evaluation = Evaluation(folder=folder, **content)
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: expected a file as written by pygen evaluate, found damage "
            f"({type(error).__name__}: {error}); evaluate the run again"
        ) from error
    return evaluation if of == model_digest(folder) else None


def _estimate(value: float | str, low: float | None, high: float | None) -> Estimate:
    return Estimate(float(value), low, high)


def _text_if_infinite(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def table(evaluations: Sequence[Evaluation]) -> Table:
    """Lay out evaluations of runs of the same data, between floor and baseline.

    Parameters
    ----------
    evaluations : sequence of Evaluation
        At least one; all with the same data, reference, features, numbers and seed.

    Raises
    ------
    ValueError
        If they are not comparable.
    """
    first = evaluations[0]
    for other in evaluations[1:]:
        for field in ("data_sha256", "reference", "n_reference", "n_samples", "features", "seed"):
            if getattr(other, field) != getattr(first, field):
                raise ValueError(
                    f"{other.folder}: expected figures comparable to those of {first.folder}, "
                    f"found {field} {getattr(other, field)} and {getattr(first, field)}; evaluate "
                    f"them together"
                )
    of = {FLOOR: first.floor}
    of |= dict(zip(_names(evaluations), (e.figures for e in evaluations), strict=True))
    of |= {BASELINE: first.baseline}
    shown = [name for name in MEASURES if any(name in figures for figures in of.values())]
    columns = ["model", *(f"{MEASURES[name].heading} {MEASURES[name].better}" for name in shown)]
    rows = [
        [title, *(_cell(figures.get(name), MEASURES[name].decimals) for name in shown)]
        for title, figures in of.items()
    ]
    return Table(
        f"Samples: {first.data}", [c.strip() for c in columns], rows, _notes(evaluations, shown)
    )


def _names(evaluations: Sequence[Evaluation]) -> list[str]:
    """The folders' names, with as much of the path as tells them apart."""
    names = [e.folder.name for e in evaluations]
    return names if len(set(names)) == len(names) else [str(e.folder) for e in evaluations]


def _cell(found: Estimate | None, decimals: int) -> str:
    if found is None:
        return ""
    if found.low is None or found.high is None:
        return f"{found.value:.{decimals}f}"
    margin = max(found.high - found.value, found.value - found.low)
    return f"{found.value:.{decimals}f} ±{margin:.{decimals}f}"


def _notes(evaluations: Sequence[Evaluation], shown: Sequence[str]) -> list[str]:
    first = evaluations[0]
    judge = first.features
    if first.accuracy is not None:
        judge += f", which gets {first.accuracy:.1%} of the held-out ones right"
    notes = [
        f"{first.n_samples:,} samples of each model beside {first.n_reference:,} images, "
        f"{first.reference}. Images are compared by {judge}. ± is a 95% confidence "
        f"interval, near the floor up to twice too wide. "
        f'"{FLOOR[0].upper()}{FLOOR[1:]}" are as many {first.others}; "{BASELINE}" takes each pixel from another '
        f"image.",
        *(text for names, text in _LEGEND if set(names) & set(shown)),
    ]
    if len({e.pixels for e in evaluations if _LIKELIHOODS & set(e.figures)}) > 1:
        of: dict[str, list[str]] = {}
        for name, one in zip(_names(evaluations), evaluations, strict=True):
            if _LIKELIHOODS & set(one.figures):
                of.setdefault(one.pixels, []).append(name)
        kinds = "; ".join(f"{', '.join(names)}: {pixels}" for pixels, names in of.items())
        notes.append(f"Likelihoods of different pixels are not comparable. {kinds}.")
    return notes
