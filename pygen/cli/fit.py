"""`pygen fit`: fit a model to images and save it with the record of how it was made."""

from __future__ import annotations

import re
import time
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

import pygen
from pygen.cli import model_options, options
from pygen.cli.pixels import Pixels
from pygen.cli.runs import Run, digest, new_run, write_record, write_run
from pygen.cli.training import training_run
from pygen.density import ClassConditional


def run(asked: options.Fit) -> None:
    """Carry out `pygen fit`."""
    size = _size(asked.image_size)
    if isinstance(asked.model, model_options.Deep):
        _train(asked, asked.model, size)
    else:
        _fit(asked, asked.model, size)


def _fit(asked: options.Fit, model: model_options.Density, size: tuple[int, int] | None) -> None:
    """Fit a density model."""
    pixels = _pixels(asked.data, model)
    estimator = _estimator(model)
    if isinstance(model, model_options.NaiveBayes):
        estimator.set_params(n_categories=pixels.levels)
    if isinstance(model, model_options.GaussianMixture) and model.per_class:
        estimator = ClassConditional(estimator)
    with (
        new_run(asked.out, overwrite=asked.overwrite) as stage,
        tqdm(total=3, disable=None, leave=False) as bar,
    ):
        bar.set_description("loading")
        images, labels = pygen.data.load(asked.data, asked.split, image_size=size)
        features = pixels.encode(images)
        _next(bar, "fitting")
        start = time.perf_counter()
        estimator.fit(features, labels if model.per_class else None)
        seconds = time.perf_counter() - start
        _next(bar, "scoring")
        score = float(estimator.score_samples(features).double().mean())
        record = _record(asked, size, images, labels, pixels)
        write_run(estimator, replace(record, seconds=seconds, score=score), stage)
    print(
        f"{asked.out}: {type(model).__name__} fitted to {len(images)} images in "
        f"{seconds:.2f} s, {score:.2f} nats an image"
    )


def _train(asked: options.Fit, model: model_options.Deep, size: tuple[int, int] | None) -> None:
    """Train networks; what is in the folder at every checkpoint can be gone on with."""
    estimator = _estimator(model).set_params(verbose=1)
    if estimator.device is None and torch.cuda.is_available():
        estimator.set_params(device="cuda")
    images, labels = pygen.data.load(asked.data, asked.split, image_size=size)
    record = _record(asked, size, images, labels, Pixels("bytes", None))
    chosen = labels if model.conditional else None
    with training_run(asked.out, record, resume=model.resume, overwrite=asked.overwrite):
        start = time.perf_counter()
        estimator.fit(
            images,
            chosen,
            out=asked.out,
            resume=model.resume,
            tensorboard=model.tensorboard,
        )
        seconds = time.perf_counter() - start
        if estimator.history_:
            seconds = estimator.history_[-1]["seconds"]
        write_record(replace(record, seconds=seconds), asked.out)
    print(
        f"{asked.out}: {type(model).__name__} trained on {len(images)} images for "
        f"{estimator.n_steps_} steps in {seconds:.1f} s{_kept(estimator)}"
    )


def _kept(estimator: Any) -> str:
    """Say which weights became the model, where a metric tells them apart."""
    lines = [line for line in estimator.history_ if line.get("metric") is not None]
    if not lines:
        return ""
    metrics = {
        "Autoencoder": f"{getattr(estimator, 'loss', '')} of held-out images",
        "VAE": "minus the evidence lower bound of held-out images in nats",
    }
    name = metrics.get(type(estimator).__name__, "kernel distance to real images")
    line = lines[-1]
    if estimator.keep == "best":
        line = min(lines, key=lambda line: line["metric"])
    return f"; kept those of step {line['step']}: {name} {line['metric']:.4g}"


def _record(
    asked: options.Fit, size: tuple[int, int] | None, images: Tensor, labels: Tensor, pixels: Pixels
) -> Run:
    _, channels, height, width = images.shape
    return Run(
        data=asked.data,
        split=asked.split,
        image_size=size,
        data_sha256=digest(images, labels),
        pixels=pixels,
        image_shape=(channels, height, width),
        n_images=len(images),
        seconds=None,
        score=None,
    )


def _next(bar: tqdm, stage: str) -> None:
    bar.update()
    bar.set_description(stage)


def _pixels(data: str, model: model_options.Density) -> Pixels:
    if isinstance(model, model_options.NaiveBayes):
        default = 17 if data == "digits" else 256
        return Pixels("levels", default if model.levels is None else model.levels)
    if model.levels is None:
        return Pixels("unit", None)
    return Pixels("dequantized", model.levels)


def _estimator(model: model_options.Density | model_options.Deep) -> Any:
    """Make the estimator that the options of its name describe."""
    params = asdict(model)
    for name in ("per_class", "levels", "resume", "tensorboard"):
        params.pop(name, None)
    if params["device"] is not None:
        params["device"] = str(_device(params["device"]))
    if params.get("dtype") is not None:
        params["dtype"] = getattr(torch, params["dtype"])
    return getattr(pygen, type(model).__name__)(**params)


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
