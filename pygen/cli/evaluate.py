"""`pygen evaluate`: models side by side, between other real images and independent pixels."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from pygen.cli import demo_images, evaluation, judges, options
from pygen.cli.demo_images import Images
from pygen.cli.evaluation import Evaluation
from pygen.cli.judges import Judge
from pygen.cli.runs import RECORD, Run, digest, read_run
from pygen.cli.terminal import lines
from pygen.deep import VAE
from pygen.density import ClassConditional
from pygen.density.base import DensityEstimator
from pygen.files import write_file
from pygen.metrics import (
    Estimate,
    compare_classes,
    compare_pairs,
    estimate,
    frechet_distance,
    half_samples,
    independent_pixels,
    memorisation,
    mmd_test,
    nearest,
    thinned,
)
from pygen.random import as_seed

# Samples of a model where no number is asked for, at most.
MOST = 10_000
# Images of either kind among which neighbours are sought and kernels computed, at most: their time grows with the
# square.
NEAR = 2000
# Images whose likelihoods need many codes, that are tested by permutations, whose nearest are sought, at most.
FEW = 1000
N_CODES = 50
N_NEIGHBOURS = 5
# Images that a model draws or scores at a time.
_CHUNK = 1000

Figures = dict[str, Estimate]


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
        print(shown.title, *lines(shown), *shown.notes, "", sep="\n")
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
    folders = [path for path in paths if path.is_dir() or not path.exists()]
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
    records = [read_run(folder) for folder in folders]
    beside: dict[tuple[Any, ...], _Beside] = {}
    found = []
    with tqdm(total=len(folders), unit="model", disable=None, leave=False) as bar:
        for folder, (model, record) in zip(folders, records, strict=True):
            bar.set_description(folder.name)
            key = (record.data, record.image_size, record.divided_by, record.data_sha256)
            if key not in beside:
                images = _images(folder, record)
                judge = _judge(images, features, inception_weights, seed)
                beside[key] = _Beside.of(images, judge, split, n_samples, seed, n_resamples)
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


def _images(folder: Path, record: Run) -> Images:
    """The images that a run was fitted to, and those held out."""
    if record.split != "train":
        raise ValueError(
            f"{folder}: expected a model fitted to the train split, so that there are images it "
            f"has not seen, found one fitted to {record.split!r}; fit it with --split train"
        )
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


@dataclass(frozen=True)
class _Beside:
    """What every model of the same data is compared with."""

    images: Images
    judge: Judge
    split: str
    n_samples: int
    seed: int
    n_resamples: int
    reference: Tensor
    reference_features: Tensor
    held_out_distances: Tensor
    floor: Figures
    baseline: Figures

    @classmethod
    def of(
        cls,
        images: Images,
        judge: Judge,
        split: str,
        n_samples: int | None,
        seed: int,
        n_resamples: int,
    ) -> _Beside:
        chosen = judges.order(images, seed)
        is_test = split == "test"
        reference = images.test if is_test else images.train
        others = images.train[chosen.flip(0)] if is_test else images.test
        n = min(len(reference), len(others), MOST) if n_samples is None else n_samples
        if n > len(others):
            raise ValueError(
                f"n-samples: expected at most {len(others):,}, as many as there are other real "
                f"images to compare with, found {n:,}"
            )
        features = judge.features(reference)
        n_features = features.shape[1]
        if min(n, len(features)) <= n_features:
            raise ValueError(
                f"{images.name}: expected at least {n_features + 1:,} samples and as many "
                f"reference images, for the covariance of {n_features:,} features, found {n:,} "
                f"and {len(features):,}; ask for more (--n-samples), or compare by other features"
            )
        held_out = nearest(thinned(images.test, FEW), images.train).distances
        beside = cls(
            images, judge, split, n, seed, n_resamples, reference, features, held_out, {}, {}
        )
        # Other real images are training images: that they are near to themselves says nothing.
        beside.floor.update(beside.figures(others[:n], seeks_copies=not is_test))
        drawn = independent_pixels(images.train, n, seed)
        beside.baseline.update(beside.figures(drawn))
        return beside

    def figures(self, made: Tensor, *, seeks_copies: bool = True) -> Figures:
        """All figures of made images, uint8 `[n, C, H, W]`."""
        real, fake = self.reference_features, self.judge.features(made)
        figures = self._spread(
            lambda a, b: {"frechet_distance": frechet_distance(a, b)},
            *(real, fake),
            at_least=real.shape[1] + 1,
        )
        near, near_fake = thinned(real, NEAR), thinned(fake, NEAR)
        scaled = not self.judge.has_unit
        figures |= self._spread(
            lambda a, b: compare_pairs(a, b, N_NEIGHBOURS, scaled=scaled), near, near_fake
        )
        test = mmd_test(thinned(real, FEW), thinned(fake, FEW), random_state=self.seed)
        figures["mmd_p_value"] = Estimate(test.p_value)
        if self.judge.classifier is not None:
            labels, classes = self.judge.classifier.predict(made), self.judge.classifier.classes_
            figures |= self._spread(lambda a: compare_classes(a, classes), labels)
        if seeks_copies:
            distances = nearest(thinned(made, FEW), self.images.train).distances
            figures |= self._spread(
                lambda a, b: {"memorisation": memorisation(a, b)},
                *(distances, self.held_out_distances),
            )
        return figures

    def likelihoods(self, model: Any, record: Run) -> Figures:
        """Of models that have them: nats per image of the reference."""
        figures: Figures = {}
        for name, values in _log_likelihoods(model, record, self):
            figures |= self._spread(lambda a, of=name: {of: a.mean().item()}, values)
        return figures

    def _spread(
        self,
        figures: Callable[..., dict[str, float]],
        *rows: Tensor,
        at_least: int = N_NEIGHBOURS + 1,
    ) -> Figures:
        """Figures of rows, with the intervals that halves of the rows give, if these are `at_least` so many."""
        found = figures(*rows)
        halves = []
        if min(len(of) // 2 for of in rows) >= at_least:
            chosen = (half_samples(len(of), self.n_resamples, self.seed) for of in rows)
            for positions in zip(*chosen, strict=True):
                parts = (of[some] for of, some in zip(rows, positions, strict=True))
                halves.append(figures(*parts))
        return {
            name: estimate(value, [half[name] for half in halves]) for name, value in found.items()
        }


def _evaluate(folder: Path, model: Any, record: Run, beside: _Beside) -> Evaluation:
    figures = beside.figures(_samples(model, record, beside.n_samples, beside.seed))
    figures |= beside.likelihoods(model, record)
    images, judge = beside.images, beside.judge
    held_out = f"held out ({images.held_out})"
    return Evaluation(
        folder=folder,
        title=title(model),
        data=record.data,
        data_sha256=record.data_sha256,
        split=beside.split,
        reference=held_out if beside.split == "test" else "those all models were fitted to",
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


def title(model: Any) -> str:
    """Return a model's name."""
    if isinstance(model, ClassConditional):
        return f"{type(model.estimator).__name__} per class"
    return type(model).__name__


def _samples(model: Any, record: Run, n: int, seed: int) -> Tensor:
    """Images uint8 `[n, C, H, W]` drawn from a model, a part at a time."""
    rng = np.random.default_rng(seed)
    parts = []
    for start in range(0, n, _CHUNK):
        drawn, _ = model.sample(min(_CHUNK, n - start), random_state=rng)
        parts.append(record.pixels.decode(drawn.reshape(-1, *record.image_shape)))
    return torch.cat(parts)


def _log_likelihoods(model: Any, record: Run, beside: _Beside) -> Iterator[tuple[str, Tensor]]:
    """Names and nats of each image of the reference, float64 `[N]`."""
    test = beside.split == "test"
    labels = beside.images.test_labels if test else beside.images.train_labels
    rng = np.random.default_rng(beside.seed)

    def score(images: Tensor, labels: Tensor, **asked: Any) -> Tensor:
        parts = []
        for part, y in zip(images.split(_CHUNK), labels.split(_CHUNK), strict=True):
            features = record.pixels.encode(part, rng)
            of = {"y": y} if getattr(model, "conditional", False) else {}
            parts.append(model.score_samples(features, **of, **asked).double().cpu())
        return torch.cat(parts) + record.pixels.log_volume(images[0].numel())

    if isinstance(model, VAE):
        some, of_some = thinned(beside.reference, FEW), thinned(labels, FEW)
        yield "elbo", score(some, of_some, random_state=beside.seed)
        yield "iwae", score(some, of_some, random_state=beside.seed, n_importance=N_CODES)
    elif isinstance(model, DensityEstimator):
        yield "log_likelihood", score(beside.reference, labels)


def _described(record: Run) -> str:
    """What a likelihood is of, in words."""
    pixels = record.pixels
    if pixels.levels is None:
        return "a density of pixels as they are, from 0 to 1"
    return f"a density on [0, 1] of {pixels.levels} grey levels, dequantised"
