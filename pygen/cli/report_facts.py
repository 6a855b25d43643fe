"""How a model was made, in figures and words."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from pygen.cli.report_subject import Subject
from pygen.io import CONFIG, TENSORS


def facts(of: Subject) -> dict[str, str]:
    """Return what the record and the files say, by name."""
    record, model = of.record, of.model
    channels, height, width = record.image_shape
    found = {"Model": " ".join(repr(model).split())}
    if record.command is not None:
        found["Command"] = record.command
    found["Versions"] = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    found["Data"] = (
        f"{record.n_images:,} images of {record.data}, split {record.split}; {height} x {width} "
        f"pixels, {channels} {'channel' if channels == 1 else 'channels'}; SHA-256 "
        f"{record.data_sha256[:12]}…{'' if of.is_same else ', which the data there now does not have'}"
    )
    found["Pixels"] = _pixels(record.pixels.kind, record.pixels.levels)
    found["Parameters"] = f"{n_parameters(model):,}"
    size = sum((of.folder / name).stat().st_size for name in (TENSORS, CONFIG))
    found["Size"] = f"{size / 1e6:.2f} MB"
    if record.seconds is not None:
        found["Fit"] = _duration(record.seconds)
        if hasattr(model, "n_steps_"):
            found["Fit"] += f", {model.n_steps_:,} steps"
    if record.score is not None:
        found["Score"] = f"{record.score:.2f} nats for an image that it was fitted to, on average"
    seed = getattr(getattr(model, "estimator", model), "random_state", None)
    if isinstance(seed, int):
        found["Seed"] = f"{seed} of the fit, {of.seed} of this page"
    return found


def n_parameters(model: Any) -> int:
    """Numbers that fitting was free to choose: weights of networks, or parameters of distributions."""
    networks = [value for name, value in vars(model).items() if isinstance(value, nn.Module)]
    networks = [network for network in networks if network not in _given(model)]
    if networks:
        return sum(value.numel() for network in networks for value in network.parameters())
    if hasattr(model, "estimators_"):
        return sum(map(n_parameters, model.estimators_)) + len(model.estimators_) - 1
    if hasattr(model, "means_"):
        return model._n_parameters()
    classes = len(model.class_prior_)
    if hasattr(model, "theta_"):
        return 2 * math.prod(model.theta_.shape) + classes - 1
    free = sum(int(n) - 1 for n in model.n_categories_)
    return classes * free + classes - 1


def _given(model: Any) -> list[Any]:
    """Networks that a model was made with, and copied."""
    return [getattr(model, name) for name in model.get_params(deep=False)]


def _pixels(kind: str, levels: int | None) -> str:
    return {
        "levels": f"{levels} grey levels, each a category",
        "dequantized": f"{levels} grey levels, with noise to fill the gaps between them",
        "unit": "numbers from 0 to 1",
        "bytes": "as they are",
    }[kind]


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
