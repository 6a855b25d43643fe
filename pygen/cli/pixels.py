"""Images as the numbers a model takes, and a model's numbers as images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pygen.data import quantize, to_unit
from pygen.ops import uniform
from pygen.random import RandomState, new_state

KINDS = ("levels", "dequantized", "unit", "bytes")


@dataclass(frozen=True)
class Pixels:
    """How pixels become a model's features.

    Attributes
    ----------
    kind : {"levels", "dequantized", "unit", "bytes"}
        "levels": the grey level g in 0..levels-1, for models of categories. "dequantized":
        (g + u) / levels with u uniform in [0, 1), so that a density of it bounds the probability
        of the grey levels (Theis, van den Oord and Bethge, "A note on the evaluation of
        generative models", 2016). "unit": x / 255. "bytes": as they are, for models that scale
        them themselves.
    levels : int or None
        Number of grey levels, 2 to 256; None for "unit" and "bytes".
    """

    kind: str
    levels: int | None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"pixels: expected one of {', '.join(KINDS)}, found {self.kind!r}")
        if self.kind in ("unit", "bytes"):
            if self.levels is not None:
                raise ValueError(
                    f"levels: expected none for {self.kind} pixels, found {self.levels!r}"
                )
        elif type(self.levels) is not int or not 2 <= self.levels <= 256:
            raise ValueError(f"levels: expected 2 to 256, found {self.levels!r}")

    def encode(self, images: Tensor, random_state: RandomState = 0) -> Tensor:
        """Turn images, uint8 [N, C, H, W], into features of that shape.

        `random_state` draws the noise of "dequantized".
        """
        if self.levels is None:
            return images if self.kind == "bytes" else to_unit(images)
        codes = quantize(images, self.levels)
        if self.kind == "levels":
            return codes
        noise = uniform(new_state(random_state), list(images.shape), torch.float32)
        return (codes + noise) / self.levels

    def decode(self, features: Tensor) -> Tensor:
        """Turn features into images, uint8; what lies outside black and white is clipped."""
        features = features.cpu()
        if self.kind == "bytes":
            return features
        if self.levels is None:
            return features.clamp(0, 1).mul(255).round().to(torch.uint8)
        codes = features if self.kind == "levels" else (features * self.levels).floor()
        codes = codes.clamp(0, self.levels - 1)
        return (codes.double() * (255 / (self.levels - 1))).round().to(torch.uint8)

    def log_volume(self, n_features: int) -> float:
        """Return what to add to a log-probability, in nats, to make it a density on [0, 1].

        The mass of a grey level is spread evenly over its cell, 1/levels wide. Densities are
        left as they are.
        """
        return n_features * math.log(self.levels) if self.levels and self.kind == "levels" else 0.0
