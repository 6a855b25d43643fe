"""What a report shows of a model's codes: where images lie, and what lies elsewhere."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pygen.cli.report_subject import Subject
from pygen.pictures import grid
from pygen.report import Chart, Figure, Section, Series

_MAPPED = 2000
_DIMENSIONS = 6
# Standard deviations to either side of a traversal's middle.
_REACH = 2.5


def sections(of: Subject) -> list[Section]:
    """All there are for a model with an encoder."""
    images, labels = of.some(_MAPPED)
    features = of.record.pixels.encode(images)
    codes = torch.as_tensor(of.model.encode(features, of.told(labels))).cpu()
    found = [_map(of, codes, labels)]
    if of.model.latent_dim == 2:
        found.append(_square(of))
    found.append(_traversals(of, codes, labels))
    return found


def _map(of: Subject, codes: Tensor, labels: Tensor) -> Section:
    """Codes in the plane, coloured by class."""
    axes = ("first number of the code", "second number of the code")
    text = f"Where the codes of {len(codes):,} {of.what} lie"
    if codes.shape[1] == 1:
        codes = torch.cat([codes, torch.zeros_like(codes)], 1)
        axes = (axes[0], "")
    elif codes.shape[1] > 2:
        codes, share = _principal(codes.double())
        axes = ("first principal direction", "second principal direction")
        text += (
            f", seen along the first two principal directions of the {of.model.latent_dim} numbers, "
            f"which hold {share:.0%} of their variance"
        )
    classes = labels.unique().tolist()
    series = []
    for label in classes:
        x, y = codes[labels == label].T.tolist()
        series.append(Series(str(label), x, y))
    if len(classes) > 1:
        text += ". The colour is the class"
        if not of.model.conditional:
            text += ", which the model was never told"
    text += "."
    alt = f"Scatter plot of the codes of {len(codes):,} images, coloured by {len(classes)} classes"
    return Section("Map of codes", text, [Chart(series, *axes, alt, is_scatter=True)])


def _principal(codes: Tensor) -> tuple[Tensor, float]:
    """Codes along the two directions in which they vary most, and the share of variance these hold."""
    codes = codes - codes.mean(0)
    _, spread, directions = torch.linalg.svd(codes, full_matrices=False)
    variances = spread.square()
    # The sign of a direction is anybody's choice: the largest entry is positive.
    first = directions[:2]
    first = first * first.gather(1, first.abs().argmax(1, keepdim=True)).sign()
    return codes @ first.T, float(variances[:2].sum() / variances.sum().clamp_min(1e-300))


def _square(of: Subject) -> Section:
    """What codes all over the plane decode to."""
    n = of.columns
    steps = torch.special.ndtri((torch.arange(n) + 0.5) / n)
    # From the upper left, as a plane is drawn.
    second, first = torch.meshgrid(steps.flip(0), steps, indexing="ij")
    codes = torch.stack([first.flatten(), second.flatten()], 1)
    text = (
        f"Codes all over the plane, decoded: both numbers at {n} quantiles of the standard normal "
        "distribution, which is what the model draws codes from."
    )
    if hasattr(of.model, "code_mean_"):
        codes = codes * torch.as_tensor(of.model.code_scale_) + torch.as_tensor(of.model.code_mean_)
        text = (
            f"Codes all over the plane, decoded: both numbers at {n} quantiles of the normal "
            "distribution with the mean and deviation that they have in training."
        )
    y: Any = None
    if of.model.conditional:
        y = of.classes[len(of.classes) // 2]
        text += f" The class is {y}."
    made = of.record.pixels.decode(torch.as_tensor(of.model.decode(codes.float(), y)))
    alt = f"{n} rows of {n} images, which change steadily from place to place"
    return Section("The plane of codes", text, [Figure(grid(made, n), alt)])


def _traversals(of: Subject, codes: Tensor, labels: Tensor) -> Section:
    """One number of a code at a time from small to large."""
    deviations, means = torch.std_mean(codes.double(), 0, correction=0)
    chosen = deviations.argsort(descending=True, stable=True)[:_DIMENSIONS]
    every = len(chosen) == codes.shape[1]
    if every:
        chosen = chosen.sort().values
    n = of.columns
    steps = torch.linspace(-_REACH, _REACH, n, dtype=torch.float64)
    swept = codes[0].double().repeat(len(chosen), n, 1)
    for row, dimension in enumerate(chosen.tolist()):
        swept[row, :, dimension] = means[dimension] + steps * deviations[dimension]
    swept = swept.flatten(0, 1).float()
    y = labels[:1].expand(len(swept)) if of.model.conditional else None
    made = of.record.pixels.decode(torch.as_tensor(of.model.decode(swept, y)))
    which = "each number" if every else f"the {len(chosen)} numbers that vary most"
    text = (
        f"The code of one image, decoded again while {which} in turn goes from {_REACH} standard "
        f"deviations below its mean to {_REACH} above."
    )
    alt = f"{len(chosen)} rows of images, in each of which one number of the code grows"
    rows = [f"z{dimension + 1}" for dimension in chosen.tolist()]
    figure = Figure(grid(made, n), alt, row_labels=rows, rows="number of the code that changes")
    return Section("Traversals", text, [figure])
