"""What `pygen evaluate` found out about a run: kept beside the run, read again, laid out as a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from pygen.cli.runs import EVALUATION, model_digest
from pygen.files import write_file
from pygen.metrics import Estimate
from pygen.report import Table

FORMAT = 1
FLOOR, BASELINE = "other real images", "independent pixels"


class Measure(NamedTuple):
    """How a figure is shown: its heading, its decimals, which way is better ("" if neither)."""

    heading: str
    decimals: int
    better: str


# By the names of `Evaluation.figures`, in the order of the table's columns.
MEASURES = {
    "frechet_distance": Measure("Fréchet", 1, "↓"),
    "kernel_distance": Measure("kernel", 3, "↓"),
    "precision": Measure("precision", 2, "↑"),
    "density": Measure("density", 2, "↑"),
    "recall": Measure("recall", 2, "↑"),
    "coverage": Measure("coverage", 2, "↑"),
    "two_sample_accuracy": Measure("two-sample", 2, "↓"),
    "mmd_p_value": Measure("MMD p", 3, "↑"),
    "class_entropy": Measure("entropy", 2, "↑"),
    "smallest_share": Measure("rarest class", 3, "↑"),
    "memorisation": Measure("memorised", 2, ""),
    "log_likelihood": Measure("log p(x)", 1, "↑"),
    "elbo": Measure("ELBO", 1, "↑"),
    "iwae": Measure("IWAE", 1, "↑"),
}


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
    reference : str
        The reference in words.
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
    """Return it as JSON has it; each figure is value, low, high."""
    content = asdict(replace(evaluation, folder=Path()))
    for name in ("figures", "floor", "baseline"):
        content[name] = {key: found._asdict() for key, found in getattr(evaluation, name).items()}
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
            content[name] = {key: Estimate(**found) for key, found in content[name].items()}
        evaluation = Evaluation(folder=folder, **content)
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: expected a file as written by pygen evaluate, found damage "
            f"({type(error).__name__}: {error}); evaluate the run again"
        ) from error
    return evaluation if of == model_digest(folder) else None


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
    return Table(f"Samples: {first.data}", [c.strip() for c in columns], rows, _notes(evaluations))


def _names(evaluations: Sequence[Evaluation]) -> list[str]:
    """The folders' names, with as much of the path as tells them apart."""
    names = [e.folder.name for e in evaluations]
    return names if len(set(names)) == len(names) else [str(e.folder) for e in evaluations]


def _cell(found: Estimate | None, decimals: int) -> str:
    if found is None:
        return ""
    if found.low is None or found.high is None:
        return f"{found.value:.{decimals}f}"
    return f"{found.value:.{decimals}f} ±{(found.high - found.low) / 2:.{decimals}f}"


def _notes(evaluations: Sequence[Evaluation]) -> list[str]:
    first = evaluations[0]
    judge = "" if first.accuracy is None else f", {first.accuracy:.1%} of held-out images right"
    return [
        f"{first.n_samples:,} samples of each model beside {first.n_reference:,} images, "
        f"{first.reference}, in the features of {first.features}{judge}. ± is half of a 95% "
        f"confidence interval."
    ]
