"""`pygen evaluate`: models side by side, between other real images and independent pixels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from pygen.cli import demo_images, evaluation, judges, options
from pygen.cli.comparison import CHUNK, Comparison
from pygen.cli.demo_images import Images
from pygen.cli.evaluation import Evaluation
from pygen.cli.judges import Judge
from pygen.cli.runs import RECORD, Run, digest, read_record, read_run
from pygen.cli.terminal import lines, wrapped
from pygen.density import ClassConditional
from pygen.files import write_file
from pygen.random import as_seed


def run(asked: options.Evaluate) -> None:
    """Carry out `pygen evaluate`."""
    if asked.out is not None and not asked.out.parent.is_dir():
        raise FileNotFoundError(
            f"{asked.out}: expected the folder {asked.out.parent} to exist; make it first"
        )
    found = evaluate_runs(
        run_folders(asked.runs),
        n_samples=asked.n,
        features=asked.features,
        inception_weights=asked.inception_weights,
        split=asked.split,
        seed=asked.seed,
        n_resamples=asked.resamples,
    )
    for of_data in by_data(found):
        shown = evaluation.table(of_data)
        print(shown.title, *lines(shown), *wrapped(shown.notes), "", sep="\n")
    if asked.out is not None:
        content = [evaluation.as_json(one) for one in found]
        text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
        write_file(asked.out, text.encode())
        print(asked.out)


def run_folders(paths: Sequence[Path]) -> list[Path]:
    """The folders of runs among paths, as a shell's * gives them: files are passed over.

    Raises
    ------
    FileNotFoundError
        If a path does not exist, a folder holds no run, or there is no folder.
    """
    folders = [path for path in dict.fromkeys(paths) if path.is_dir() or not path.exists()]
    for folder in folders:
        if not (folder / RECORD).is_file():
            raise FileNotFoundError(
                f"{folder}: expected the folder of a run, with its {RECORD}, found "
                f"{'none' if folder.exists() else 'nothing there'}; pygen fit and pygen demo make "
                f"them"
            )
    if not folders:
        raise FileNotFoundError("runs: expected the folder of a run, found only files")
    return folders


def evaluate_runs(
    folders: Sequence[Path],
    *,
    n_samples: int | None = None,
    features: str = "classifier",
    inception_weights: Path | None = None,
    split: str = "test",
    seed: int = 0,
    n_resamples: int = 40,
) -> list[Evaluation]:
    """Evaluate runs; each evaluation is also kept in its run's folder.

    Parameters
    ----------
    folders : sequence of Path
    n_samples : int, optional
        Images drawn from each model. Default: as many as the reference has, at most MOST.
    features : {"classifier", "pixels"}
    inception_weights : Path, optional
        Instead of `features`: see :class:`pygen.metrics.Inception`.
    split : {"test", "train"}
        The reference.
    seed : int
        Of samples, resamples and the classifier.
    n_resamples : int
        See :func:`pygen.metrics.half_samples`.

    Returns
    -------
    list of Evaluation
        In the order of the folders.

    Raises
    ------
    FileNotFoundError, ValueError
        If a run cannot be read, was fitted to images of the reference, its data have changed, or there are too few
        images for a figure.
    """
    as_seed(seed)
    if n_samples is not None and n_samples < 2:
        raise ValueError(f"n-samples: expected at least 2, found {n_samples}")
    if n_resamples < 0:
        raise ValueError(f"resamples: expected at least 0, found {n_resamples}")
    for folder in folders:  # before hours of work on others
        _check_split(folder, read_record(folder)[0])
    beside: dict[tuple[Any, ...], Comparison] = {}
    found = []
    with tqdm(total=len(folders), unit="model", disable=None, leave=False) as bar:
        for folder in folders:
            bar.set_description(folder.name)
            model, record = read_run(folder)
            key = (record.data, record.image_size, record.divided_by, record.data_sha256)
            if key not in beside:
                images = _images(folder, record)
                judge = _judge(images, features, inception_weights, seed)
                beside[key] = Comparison.of(images, judge, split, n_samples, seed, n_resamples)
            found.append(_evaluate(folder, model, record, beside[key]))
            evaluation.write(found[-1])
            bar.update()
    return found


def by_data(evaluations: Sequence[Evaluation]) -> list[list[Evaluation]]:
    """Those of the same images together."""
    groups: dict[str, list[Evaluation]] = {}
    for one in evaluations:
        groups.setdefault(one.data_sha256, []).append(one)
    return list(groups.values())


def _check_split(folder: Path, record: Run) -> None:
    if record.split != "train":
        raise ValueError(
            f"{folder}: expected a model fitted to the train split, so that there are images it "
            f"has not seen, found one fitted to {record.split!r}; fit it with --split train"
        )


def _images(folder: Path, record: Run) -> Images:
    """The images that a run was fitted to, and those held out."""
    images = demo_images.load(record.data, record.divided_by, record.image_size)
    if digest(images.train, images.train_labels) != record.data_sha256:
        raise ValueError(
            f"{folder}: expected {record.data} to hold the {record.n_images} images that the model "
            f"was fitted to, found {len(images.train)} others; fit it again"
        )
    return images


def _judge(images: Images, features: str, inception_weights: Path | None, seed: int) -> Judge:
    if inception_weights is not None:
        return judges.by_inception(inception_weights)
    return judges.by_pixels() if features == "pixels" else judges.by_classifier(images, seed)


def _evaluate(folder: Path, model: Any, record: Run, beside: Comparison) -> Evaluation:
    figures = beside.figures(_samples(model, record, beside.n_samples, beside.seed))
    figures |= beside.likelihoods(model, record)
    images, judge = beside.images, beside.judge
    if beside.split == "test":
        reference = f"held out from all models ({images.held_out})"
        others = f"training images{_overlap(beside)}"
    else:
        reference, others = "those that all models were fitted to", "held-out images"
    return Evaluation(
        folder=folder,
        title=title(model),
        data=record.data,
        data_sha256=record.data_sha256,
        split=beside.split,
        reference=reference,
        others=others,
        n_reference=len(beside.reference),
        n_samples=beside.n_samples,
        features=judge.name,
        accuracy=judge.accuracy,
        seed=beside.seed,
        pixels=_described(record),
        figures=figures,
        floor=beside.floor,
        baseline=beside.baseline,
    )


def _overlap(beside: Comparison) -> str:
    """Say it where the classifier knows the training images of the floor."""
    if beside.judge.classifier is None:
        return ""
    if len(beside.images.train) - judges.LEARNED >= beside.n_samples:
        return ", which the classifier has not seen"
    return ", which the classifier has learned from"


def title(model: Any) -> str:
    """Return a model's name."""
    if isinstance(model, ClassConditional):
        return f"{type(model.estimator).__name__} per class"
    return type(model).__name__


def _samples(model: Any, record: Run, n: int, seed: int) -> Tensor:
    """Images uint8 `[n, C, H, W]` drawn from a model, a part at a time."""
    rng = np.random.default_rng(seed)
    parts = []
    for start in range(0, n, CHUNK):
        drawn, _ = model.sample(min(CHUNK, n - start), random_state=rng)
        parts.append(record.pixels.decode(drawn.reshape(-1, *record.image_shape)))
    return torch.cat(parts)


def _described(record: Run) -> str:
    """What a likelihood is of, in words."""
    pixels = record.pixels
    if pixels.levels is None:
        return "a density of pixels as they are, from 0 to 1"
    return f"a density on [0, 1] of {pixels.levels} grey levels, dequantised"
