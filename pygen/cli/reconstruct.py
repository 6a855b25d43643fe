"""`pygen reconstruct`: images above what a model makes of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pygen.cli import choice, options
from pygen.cli.output import check_out, pairs, write
from pygen.cli.runs import Run, read_run


def run(asked: options.Reconstruct) -> None:
    """Carry out `pygen reconstruct`."""
    check_out(asked.out)
    if asked.n < 1:
        raise ValueError(f"n-images: expected at least 1, found {asked.n}")
    model, record = read_run(asked.run)
    if not hasattr(model, "reconstruct"):
        raise ValueError(
            f"{asked.run}: expected an autoencoder or a VAE, found a {type(model).__name__}, which "
            f"has no way from an image to a code"
        )
    images, labels = choice.load(record, asked.data, asked.split)
    chosen = choice.rows(labels, asked.n, asked.seed)
    images, labels = images[chosen], labels[chosen]
    again = reconstructed(model, record, images, labels)
    write(torch.stack([images, again]), pairs(images, again), asked.out)


def reconstructed(model: Any, record: Run, images: Tensor, labels: Tensor) -> Tensor:
    """Images `[N, C, H, W]`, uint8, encoded and decoded by a model that has been told their labels."""
    y = labels if model.conditional else None
    return record.pixels.decode(model.reconstruct(record.pixels.encode(images), y))
