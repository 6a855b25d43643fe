"""`pygen fit`: fit a model to images and save it with the record of how it was made."""

from __future__ import annotations

import dataclasses
import re
import time
from typing import Any

import torch
from tqdm import tqdm

import pygen
from pygen.cli import options
from pygen.cli.pixels import Pixels
from pygen.cli.runs import Run, new_run, write_run
from pygen.density import ClassConditional


def run(asked: options.Fit) -> None:
    """Carry out `pygen fit`."""
    pixels = _pixels(asked)
    estimator = _estimator(asked, pixels)
    size = _size(asked.image_size)
    with (
        new_run(asked.out, overwrite=asked.overwrite) as stage,
        tqdm(total=3, disable=None, leave=False) as bar,
    ):
        bar.set_description("loading")
        images, labels = pygen.data.load(asked.data, asked.split, image_size=size)
        features = pixels.encode(images)
        _next(bar, "fitting")
        start = time.perf_counter()
        estimator.fit(features, labels if asked.per_class else None)
        seconds = time.perf_counter() - start
        _next(bar, "scoring")
        score = float(estimator.score_samples(features).double().mean())
        _, channels, height, width = images.shape
        record = Run(
            data=asked.data,
            split=asked.split,
            image_size=size,
            pixels=pixels,
            image_shape=(channels, height, width),
            n_images=len(images),
            seconds=seconds,
            score=score,
        )
        write_run(estimator, record, stage)
    print(
        f"{asked.out}: {type(asked.model).__name__} fitted to {len(images)} images in "
        f"{seconds:.2f} s, {score:.2f} nats an image"
    )


def _next(bar: tqdm, stage: str) -> None:
    bar.update()
    bar.set_description(stage)


def _pixels(asked: options.Fit) -> Pixels:
    if isinstance(asked.model, options.NaiveBayes):
        default = 17 if asked.data == "digits" else 256
        return Pixels("levels", default if asked.levels is None else asked.levels)
    if asked.levels is None:
        return Pixels("unit", None)
    return Pixels("dequantized", asked.levels)


def _estimator(asked: options.Fit, pixels: Pixels) -> Any:
    """Make the estimator that the options of its name describe."""
    params = dataclasses.asdict(asked.model)
    if params["device"] is not None:
        params["device"] = str(_device(params["device"]))
    if params.get("dtype") is not None:
        params["dtype"] = getattr(torch, params["dtype"])
    if isinstance(asked.model, options.NaiveBayes):
        params["n_categories"] = pixels.levels
    estimator = getattr(pygen, type(asked.model).__name__)(**params)
    if isinstance(asked.model, options.GaussianMixture) and asked.per_class:
        return ClassConditional(estimator)
    return estimator


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"device: expected cpu, or a device that torch sees here (pygen info lists them), "
            f"found {name!r}: {reason}"
        ) from error
    return device


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if match is None:
        raise ValueError(f"image-size: expected a number or HEIGHTxWIDTH, found {text!r}")
    return int(match[1]), int(match[2] or match[1])
