"""Models of the same data compared: what stands beside their samples, and the figures that come of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pygen.cli import judges
from pygen.cli.demo_images import Images
from pygen.cli.evaluation import (
    FEW,
    MEASURES,
    N_CODES,
    N_NEIGHBOURS,
    N_PERMUTATIONS,
    NEAR,
)
from pygen.cli.judges import Judge
from pygen.cli.runs import Run
from pygen.deep import VAE
from pygen.density.base import DensityEstimator
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

# Samples of a model where no number is asked for, at most.
MOST = 10_000
# Images that a model draws or scores at a time.
CHUNK = 1000

Figures = dict[str, Estimate]


@dataclass(frozen=True)
class Comparison:
    """What every model of the same data is compared with.

    Attributes
    ----------
    images, judge, split, seed, n_resamples
        See `Comparison.of`.
    n_samples : int
        Images of each model, and other real images.
    reference : Tensor
        uint8 `[N, C, H, W]`.
    reference_features : Tensor
        Its features, `[N, F]`.
    held_out_distances : Tensor
        From held-out images to the nearest training images.
    floor, baseline : dict of str to Estimate
        Figures of other real images, and of independent pixels.
    """

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
    ) -> Comparison:
        """Prepare the comparison of models that were fitted to the training images.

        Parameters
        ----------
        images : Images
        judge : Judge
        split : {"test", "train"}
            The reference.
        n_samples : int or None
            Images of each model. Default: as many as the reference and the other real images have, at most MOST.
        seed : int
            Of independent pixels, the choice of other real images, resamples.
        n_resamples : int
            See :func:`pygen.metrics.half_samples`.

        Raises
        ------
        ValueError
            If there are fewer other real images than samples are asked for, or too few images for a covariance.
        """
        is_test = split == "test"
        reference, others = images.test, images.train
        if not is_test:
            reference, others = others, reference
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
        held_out = nearest(thinned(images.test, FEW), images.train).distances[:, 0]
        beside = cls(
            images, judge, split, n, seed, n_resamples, reference, features, held_out, {}, {}
        )
        # That training images are near to training images says nothing.
        chosen = judges.order(images, seed).flip(0) if is_test else torch.arange(len(others))
        beside.floor.update(beside.figures(others[chosen[:n]], seeks_copies=not is_test))
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
        few, few_fake = thinned(real, FEW), thinned(fake, FEW)
        test = mmd_test(few, few_fake, N_PERMUTATIONS, self.seed)
        figures["mmd_p_value"] = Estimate(test.p_value)
        if self.judge.classifier is not None:
            labels, classes = self.judge.classifier.predict(made), self.judge.classifier.classes_
            figures |= self._spread(lambda a: compare_classes(a, classes), labels)
        if seeks_copies:
            distances = nearest(thinned(made, FEW), self.images.train).distances[:, 0]
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
        estimates = {}
        for name, value in found.items():
            measure = MEASURES[name]
            estimates[name] = estimate(
                value, [half[name] for half in halves], least=measure.least, most=measure.most
            )
        return estimates


def _log_likelihoods(model: Any, record: Run, beside: Comparison) -> Iterator[tuple[str, Tensor]]:
    """Names and nats of each image of the reference, float64 `[N]`."""
    test = beside.split == "test"
    labels = beside.images.test_labels if test else beside.images.train_labels

    def score(images: Tensor, labels: Tensor, **asked: Any) -> Tensor:
        rng, parts = np.random.default_rng(beside.seed), []
        for part, y in zip(images.split(CHUNK), labels.split(CHUNK), strict=True):
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
